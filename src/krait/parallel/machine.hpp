// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <utility>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

/// What one rank can do, with all its threads, while all other ranks do the same. The defaults are round numbers of a
/// rank with 16 cores on a cluster with 100 Gbit/s links; they are constants, so that all ranks decide alike.
struct Machine {
  /// Operations per second of the scan: 4 heads head_dim d_state per token.
  double scan_flops = 5e11;
  /// The same operations over the time of the scan's backward, and of a summary that visits all tokens.
  double scan_backward_flops = scan_flops / 2.1;
  double summary_flops = scan_flops / 0.45;
  /// Bytes per second of a copy, read and written ones counted.
  double memory_bandwidth = 5e10;
  /// The same of packing tokens for heads, and of unpacking them.
  double pack_bandwidth = memory_bandwidth;
  /// The same of the convolution, which reads and writes its channels, and of its backward, which reads them twice.
  double conv_bandwidth = memory_bandwidth;
  double conv_backward_bandwidth = memory_bandwidth;
  /// Bytes per second that a rank sends while it receives as many.
  double network_bandwidth = 1e10;
  /// Seconds that one message costs, however short.
  double latency = 5e-6;

  using Member = std::pair<const char*, double Machine::*>;
  /// All of them, with their names.
  static const std::vector<Member>& members();

  /// \throws ConfigError naming a value that is not of [1e-30, 1e30]
  void validate() const;

  friend bool operator==(const Machine&, const Machine&) = default;
};

/// Of two measurements of one machine the higher rates and the lower latency: its other users only ever take from it.
Machine better_of(const Machine& one, const Machine& other);

/// Measures the machine in one to four seconds, longer where heads are tiny: the steps of an operator on a small
/// problem, a copy, messages of a few bytes around the ring, an all-to-all, and an exchange of tokens for heads, three
/// times in turn; the shortest of the slowest rank's times. Collective; equal on all ranks, bit for bit. One rank alone
/// keeps the default network. Waits for `exec`, and allocates; its messages appear in the communicator's counters.
///
/// \param config  whose heads (32 of them at most, more with many threads), groups, head_dim, d_state, d_conv and
/// chunk_size the small problem has, in float: rates depend on them
/// \param tokens  of a rank's share that the rates are for: those of a share that stays in caches are higher, and steps
/// of a few tokens have lower ones. 0, or more than a small problem has: a share that is larger than caches
/// \throws ConfigError for an invalid config, or tokens below 0
template <class Exec>
Machine calibrate(const Exec& exec, const Communicator& comm, const SequenceOperatorConfig& config = {.heads = 64},
                  std::int64_t tokens = 0);

}  // namespace krait
