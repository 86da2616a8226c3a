// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/head_blocks.hpp>

#include <algorithm>

namespace krait::impl {
namespace {

/// What the states of a block should at least be. Less than that travels in a tenth of a millisecond where networks are
/// fast, and few heads pay 5 % for being scanned in two goes.
constexpr std::int64_t least_block_bytes = std::int64_t{1} << 20;

/// Heads of a block on a device, at least.
constexpr std::int64_t least_device_heads = 4;

/// How often the thread that has most to do walks a row. Of a row that is cut, every segment is walked up to twice.
double walks(std::int64_t teams, std::int64_t threads) {
  const ScanShare share(teams, threads);
  const auto rounds = static_cast<double>(share.rounds);
  return share.cuts > 1 ? 2 * rounds / static_cast<double>(share.cuts) : rounds;
}

}  // namespace

ScanShare::ScanShare(std::int64_t teams, std::int64_t threads) {
  teams = std::max<std::int64_t>(1, teams);
  cuts = std::max<std::int64_t>(1, threads / teams);
  rounds = (teams * cuts + threads - 1) / threads;
}

std::int64_t head_blocks(const SequenceOperatorConfig& config, StateExchange form, std::int64_t segments,
                         const StateMapShape& whole, std::int64_t element_bytes, std::int64_t threads) {
  if (config.head_blocks > 0) return config.head_blocks;
  if (segments < 2 || form == StateExchange::chain) return 1;
  const std::int64_t half = whole.heads / 2;
  if (element_bytes * whole.rows * half * whole.state_size < least_block_bytes) return 1;
  const double halves = walks(whole.rows * half, threads) + walks(whole.rows * (whole.heads - half), threads);
  return halves <= walks(whole.rows * whole.heads, threads) ? 2 : 1;
}

std::int64_t shared_head_blocks(const SequenceOperatorConfig& config, int ranks, bool on_device) {
  if (ranks == 1) return 1;
  const std::int64_t fewest = config.heads / ranks;
  const std::int64_t automatic = on_device && fewest >= 2 * least_device_heads ? 2 : 1;
  const std::int64_t asked = config.head_blocks > 0 ? config.head_blocks : automatic;
  return std::clamp<std::int64_t>(asked, 1, std::max<std::int64_t>(1, fewest));
}

}  // namespace krait::impl
