// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_backward_workspace.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/team_memory.hpp>
#include <limits>

namespace krait {

namespace {

using impl::HeadBlocks;
using impl::is_host_execution;
using impl::SsdScanBackwardTiling;
using impl::SsdScanBackwardWork;

constexpr const char* plan_name = "krait::SsdScanBackwardPlan";

/// Longest chunk worth having, as in the forward.
template <class Exec>
constexpr std::int64_t longest_chunk = is_host_execution<Exec> ? 64 : 16;
/// Heads of a block: the products of B and C are shared among them, and their states should stay in a cache.
constexpr std::int64_t most_heads = 8;
/// States that a worker keeps. A longer segment is walked in parts, whose states are computed once more: a fifth more
/// work.
template <class Exec>
constexpr std::int64_t kept_bytes = std::int64_t(is_host_execution<Exec> ? 128 : 8) << 20;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class V, class Exec>
std::int64_t scratch_bytes(std::int64_t chunk, const SsdScanShape& shape) {
  const impl::SsdScanBackwardScratch scratch(chunk, shape.head_dim, shape.d_state, is_host_execution<Exec> ? 0 : 1);
  return scratch.count * static_cast<std::int64_t>(sizeof(V));
}

/// Blocks of equal size. Few enough that the partial sums of dB and dC take no more memory than x, and at least eight
/// where the group has as many heads: they are what threads share.
int choose_head_block(const SsdScanShape& shape, std::int64_t heads_per_group) {
  const std::int64_t heads = std::min(shape.heads, heads_per_group);
  const std::int64_t affordable = shape.heads * shape.head_dim / (2 * shape.groups * shape.d_state);
  const std::int64_t wanted = std::max<std::int64_t>(divide_up(heads, most_heads), std::min<std::int64_t>(heads, 8));
  const std::int64_t blocks = std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, affordable));
  return static_cast<int>(divide_up(heads, blocks));
}

template <class V, class Exec>
SsdScanBackwardTiling choose_tiling(const Exec& exec, const SsdScanShape& shape, const SsdScanOptions& options,
                                    SsdScanBackwardTiling tiling) {
  const Kokkos::TeamPolicy<Exec> policy(exec, 1, 1);
  const auto limit = [&](int level) { return static_cast<std::int64_t>(policy.scratch_size_max(level)); };
  tiling.team_size = impl::team_threads<Exec>(tiling.team_size);
  if (tiling.head_block == 0) tiling.head_block = choose_head_block(shape, options.heads_per_group);
  const std::int64_t longest = tiling.chunk > 0 ? tiling.chunk : std::min(options.chunk_size, longest_chunk<Exec>);
  const std::int64_t shortest = tiling.chunk > 0 ? longest : 1;
  tiling.chunk = static_cast<int>(longest);
  tiling.scratch_level = 1;
  if constexpr (!is_host_execution<Exec>) {
    // On chip, unless that takes chunks too short for the products.
    for (const std::int64_t chunk : {longest, longest / 2}) {
      if (chunk >= shortest && scratch_bytes<V, Exec>(chunk, shape) <= impl::chip_bytes(limit(0))) {
        tiling.chunk = static_cast<int>(chunk);
        tiling.scratch_level = 0;
        return tiling;
      }
    }
  }
  while (tiling.chunk > shortest && scratch_bytes<V, Exec>(tiling.chunk, shape) > limit(1)) tiling.chunk /= 2;
  const std::int64_t bytes = scratch_bytes<V, Exec>(tiling.chunk, shape);
  KRAIT_REQUIRE(CapacityError, bytes <= limit(1), plan_name, ": head_dim = ", shape.head_dim,
                " and d_state = ", shape.d_state, " need ", bytes, " bytes of scratch memory for a team, there are ",
                limit(1));
  return tiling;
}

HeadBlocks blocks_of(const SsdScanShape& shape, const SsdScanOptions& options, int head_block) {
  return {shape.heads, options.heads_per_group, options.first_head, shape.groups, head_block};
}

/// The options with the chunk in use, and segments where the rows and blocks of heads do not keep the machine busy.
/// Segments cost two light sweeps over the tokens.
template <class V, class Exec>
SsdScanOptions with_segments(const Exec& exec, const SsdScanShape& shape, SsdScanOptions options,
                             const SsdScanBackwardTiling& tiling) {
  options.chunk_size = tiling.chunk;
  if (options.segments == 0) {
    const std::int64_t teams =
        std::max<std::int64_t>(1, shape.batch * blocks_of(shape, options, tiling.head_block).count());
    options.segments = std::clamp<std::int64_t>(
        shape.length / (8 * std::int64_t{tiling.chunk}), 1,
        std::max<std::int64_t>(1, impl::resident_teams(exec, scratch_bytes<V, Exec>(tiling.chunk, shape)) / teams));
  }
  return options;
}

template <class V, class Exec>
SsdScanBackwardWork deal_out(const Exec& exec, const SsdScanShape& shape, std::int64_t segments,
                             std::int64_t segment_length, const HeadBlocks& blocks,
                             const SsdScanBackwardTiling& tiling) {
  SsdScanBackwardWork work;
  work.items = shape.batch * segments * blocks.count();
  KRAIT_REQUIRE(CapacityError, work.items <= std::numeric_limits<int>::max(), plan_name, ": ", work.items,
                " blocks of heads, expected less than 2^31; call with fewer rows");
  work.workers = std::min(work.items, impl::resident_teams(exec, scratch_bytes<V, Exec>(tiling.chunk, shape)));
  const std::int64_t chunks = divide_up(segment_length, tiling.chunk);
  const std::int64_t set = tiling.head_block * shape.head_dim * shape.d_state * static_cast<std::int64_t>(sizeof(V));
  const std::int64_t most = tiling.kept_chunks > 0 ? tiling.kept_chunks : kept_bytes<Exec> / set;
  work.parts = divide_up(chunks, std::clamp<std::int64_t>(most, 1, chunks));
  work.kept_chunks = divide_up(chunks, work.parts);
  work.parts = divide_up(chunks, work.kept_chunks);
  return work;
}

}  // namespace

template <Scalar T, class Exec>
SsdScanBackwardPlan<T, Exec>::SsdScanBackwardPlan(const Exec& exec, const SsdScanShape& shape,
                                                  const SsdScanOptions& options,
                                                  const impl::SsdScanBackwardTiling& tiling)
    : options_(impl::complete_scan_options(plan_name, shape, options)),
      tiling_(choose_tiling<accumulator_t<T>>(exec, shape, options_, tiling)),
      sweep_(exec, shape, with_segments<accumulator_t<T>>(exec, shape, options_, tiling_)),
      workspace_("krait::ssd_scan_backward_workspace") {
  options_.chunk_size = tiling_.chunk;
  options_.segments = sweep_.options().segments;
  work_ = deal_out<accumulator_t<T>>(exec, shape, options_.segments, sweep_.segment_length(), head_blocks(), tiling_);
  tiling_.kept_chunks = static_cast<int>(work_.kept_chunks);
}

template <Scalar T, class Exec>
std::size_t SsdScanBackwardPlan<T, Exec>::workspace_bytes() const {
  return impl::SsdScanBackwardWorkspace<T>(shape(), options_.segments, head_blocks(), work_).bytes;
}

template <Scalar T, class Exec>
impl::HeadBlocks SsdScanBackwardPlan<T, Exec>::head_blocks() const {
  return blocks_of(shape(), options_, tiling_.head_block);
}

#define KRAIT_INSTANTIATE(T, EXEC) template class SsdScanBackwardPlan<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
