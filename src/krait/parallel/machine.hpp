// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>

#include <krait/comm/communicator.hpp>

namespace krait {

/// What one rank can do, with all its threads, while all other ranks do the same. The defaults are round numbers of a
/// rank with 16 cores on a cluster with 100 Gbit/s links; they are constants, so that all ranks decide alike.
struct Machine {
  /// Operations per second of the scan: 4 heads head_dim d_state per token.
  double scan_flops = 5e11;
  /// Bytes per second of a copy, read and written ones counted.
  double memory_bandwidth = 5e10;
  /// Bytes per second that a rank sends while it receives as many.
  double network_bandwidth = 1e10;
  /// Seconds that one message costs, however short.
  double latency = 5e-6;

  /// \throws ConfigError naming a value that is not positive and finite
  void validate() const;

  friend bool operator==(const Machine&, const Machine&) = default;
};

/// Measures the machine in about a second: a small scan, a copy, messages of a few bytes around the ring, and an
/// all-to-all; the slowest rank counts. Collective; equal on all ranks, bit for bit. One rank alone keeps the default
/// network. Waits for `exec`, and allocates; its messages appear in the communicator's counters.
template <class Exec>
Machine calibrate(const Exec& exec, const Communicator& comm);

}  // namespace krait
