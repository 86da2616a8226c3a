// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

#include <krait/parallel/sequence_operator.hpp>
#include <krait/parallel/state_exchange.hpp>

namespace krait::impl {

/// How the teams of a scan, one for each head of each row, are shared out among threads.
struct ScanShare {
  std::int64_t cuts;    ///< segments of a row: more than one where there are two threads or more for each team
  std::int64_t rounds;  ///< teams that a thread works through, one after the other

  ScanShare(std::int64_t teams, std::int64_t threads);
};

/// Blocks of heads in which state passing works, so that the states of one block travel while others are summarized or
/// scanned. Equal on all ranks that have the same number of threads.
///
/// What the configuration says, or two halves, unless
///
/// - there is nobody to talk to: fewer than two segments;
/// - the state is passed on in blocks of heads anyway: StateExchange::chain;
/// - the states of a half are less than 1 MiB;
/// - the threads would have more to do with two halves than with the whole: 80 heads are 5 for each of 16 threads, 40
///   are 3.
///
/// \param segments  of the whole chain
/// \param whole     the maps of all heads
std::int64_t head_blocks(const SequenceOperatorConfig& config, StateExchange form, std::int64_t segments,
                         const StateMapShape& whole, std::int64_t element_bytes, std::int64_t threads);

/// Blocks of heads in which ranks that share out `heads` exchange tokens for them (HiddenParallel), so that one travels
/// while another is convolved and scanned. Equal on all ranks.
///
/// What the configuration says, else two on a device if every rank has 8 heads or more, for 4 in each, and one on
/// hosts: there messages travel by themselves only as far as MPI has them sent by others than the rank's own threads,
/// and rows are read in more and shorter pieces. Never more than the rank with the fewest heads has, but at least one;
/// one where nobody else is.
std::int64_t shared_head_blocks(const SequenceOperatorConfig& config, int ranks, bool on_device);

/// Heads [head_block_begin(k), head_block_begin(k + 1)) are block k of `blocks`: those of rank k of as many ranks
/// (HeadPartition).
constexpr std::int64_t head_block_begin(std::int64_t block, std::int64_t heads, std::int64_t blocks) {
  return block * heads / blocks;
}

}  // namespace krait::impl
