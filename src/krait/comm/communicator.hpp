// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <memory>

#include <krait/comm/counters.hpp>
#include <krait/comm/place.hpp>
#include <krait/core/kokkos_shims.hpp>

namespace krait {

namespace impl {
class Backend;
struct CommState;
}  // namespace impl

/// A group of ranks that exchange messages. A cheap handle: copies share the same communicator, its counters and its
/// switches. The operations are free functions (`collectives.hpp`, `reductions.hpp`, `point_to_point.hpp`).
///
/// All ranks of a group start its collective operations in the same order, from one thread at a time. Over NCCL, ranks
/// that share several communicators start their operations on those in the same order too. The handle may outlive the
/// Environment, but nothing can be sent with it then.
class Communicator {
 public:
  /// This rank alone.
  static Communicator self();

  /// All ranks of the program: MPI_COMM_WORLD where MPI is enabled and initialised, else self(). Each call duplicates
  /// the MPI communicator, so all ranks call it together.
  ///
  /// For a CUDA instance, and where Krait is built with NCCL, collective operations on Views that only its device reads
  /// go over NCCL; Views that the host can read, send and recv go over MPI as ever. Where ranks share a device, which
  /// NCCL refuses, everything goes over MPI. The variable KRAIT_COMM chooses instead: auto, mpi or nccl.
  /// \throws ConfigError where KRAIT_COMM asks for what cannot be
  template <class Exec>
  static Communicator world(const Exec& exec) {
    return world_of(impl::cuda_device_of(exec));
  }

  [[nodiscard]] int rank() const { return place().rank; }
  [[nodiscard]] int size() const { return place().size; }
  [[nodiscard]] Place place() const;
  operator Place() const { return place(); }

  /// The ranks that give the same color, in the order of their keys (then of their ranks). All ranks call it together.
  /// The switches are inherited, the counters start at zero.
  /// \throws ConfigError when color is negative
  [[nodiscard]] Communicator split(int color, int key) const;

  /// Whether all messages go through a host buffer and MPI, even those in memory that MPI or NCCL could read. Off by
  /// default; for tests and for finding out whether a problem is theirs.
  [[nodiscard]] bool force_host_buffer() const;
  void force_host_buffer(bool force);

  /// Whether MPI may be handed memory that the host cannot read. The default is the build's
  /// Krait_ENABLE_GPU_AWARE_MPI; where false, such memory goes through a host buffer.
  [[nodiscard]] bool gpu_aware_mpi() const;
  void gpu_aware_mpi(bool aware);

  /// "self", "mpi" or "nccl".
  [[nodiscard]] const char* backend() const;

  /// What this rank has sent and received so far.
  [[nodiscard]] CommCounters counters() const;
  void reset_counters();

  /// Returns when all ranks have called it.
  void barrier() const;

  /// For backends and operations.
  explicit Communicator(std::shared_ptr<impl::Backend> backend);
  [[nodiscard]] const std::shared_ptr<impl::CommState>& state() const { return state_; }

 private:
  static Communicator world_of(int cuda_device);

  std::shared_ptr<impl::CommState> state_;
};

}  // namespace krait
