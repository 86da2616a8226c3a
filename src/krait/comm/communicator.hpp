// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <memory>

#include <krait/comm/counters.hpp>
#include <krait/comm/place.hpp>

namespace krait {

namespace impl {
class Backend;
struct CommState;
}  // namespace impl

/// A group of ranks that exchange messages. A cheap handle: copies share the same communicator, its counters and its
/// switches. The operations are free functions (`collectives.hpp`, `reductions.hpp`, `point_to_point.hpp`).
///
/// All ranks of a group start its collective operations in the same order, from one thread at a time. The handle may
/// outlive the Environment, but nothing can be sent with it then.
class Communicator {
 public:
  /// This rank alone.
  static Communicator self();

  /// All ranks of the program: MPI_COMM_WORLD where MPI is enabled and initialised, else self(). Each call duplicates
  /// the MPI communicator, so all ranks call it together. The execution space decides which backend suits (today always
  /// MPI).
  template <class Exec>
  static Communicator world([[maybe_unused]] const Exec& exec) {
    return world_of_hosts();
  }

  [[nodiscard]] int rank() const { return place().rank; }
  [[nodiscard]] int size() const { return place().size; }
  [[nodiscard]] Place place() const;
  operator Place() const { return place(); }

  /// The ranks that give the same color, in the order of their keys (then of their ranks). All ranks call it together.
  /// The switches are inherited, the counters start at zero.
  /// \throws ConfigError when color is negative
  [[nodiscard]] Communicator split(int color, int key) const;

  /// Whether all messages go through a host buffer, even those in memory that MPI could read. Off by default; for tests
  /// and for finding out whether a problem is MPI's.
  [[nodiscard]] bool force_host_buffer() const;
  void force_host_buffer(bool force);

  /// Whether MPI may be handed memory that the host cannot read. The default is the build's
  /// Krait_ENABLE_GPU_AWARE_MPI; where false, such memory goes through a host buffer.
  [[nodiscard]] bool gpu_aware_mpi() const;
  void gpu_aware_mpi(bool aware);

  /// "self" or "mpi".
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
  static Communicator world_of_hosts();

  std::shared_ptr<impl::CommState> state_;
};

}  // namespace krait
