// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/ssd_scan_workspace.hpp>
#include <krait/ops/team_memory.hpp>
#include <krait/tile/warps.hpp>

namespace krait {

namespace {

using impl::is_host_execution;
using impl::SsdScanTiling;

/// Longest chunk worth having: with it the products inside a chunk grow, and the traffic to the state shrinks. On hosts
/// 32 is the fastest of 16 ... 256, or within 3 % of it, for every shape and scalar that was measured:
/// docs/performance.md has the table.
template <class Exec>
constexpr std::int64_t longest_chunk = is_host_execution<Exec> ? 32 : 64;
/// Shortest one: below it a chunk costs as much as a longer one, and the state is read and written for little.
template <Scalar T, class Exec>
constexpr std::int64_t shortest_chunk = impl::scan_tiles<Exec, T> == impl::ScanTiles::warps ? 32 : 16;
/// Scratch memory that a team should keep to on a host: a part of the second-level cache.
constexpr std::int64_t cache_bytes = std::int64_t(512) << 10;
/// Channels of heads side by side on a host: their rows of a chunk should stay in the first-level cache.
constexpr int widest_band = 192;
/// The same for the states of a block of heads on a host.
constexpr std::int64_t states_bytes = std::int64_t(1536) << 10;

template <Scalar T, class Exec>
std::int64_t scratch_bytes(std::int64_t chunk, std::int64_t head_tile, std::int64_t d_state) {
  const impl::SsdScanTiling tiling{
      .chunk = static_cast<int>(chunk), .head_tile = static_cast<int>(head_tile), .head_block = 1};
  const auto scratch = impl::SsdScanScratch::of<Exec, T>(tiling, d_state);
  return scratch.count * static_cast<std::int64_t>(sizeof(accumulator_t<T>));
}

/// Fills in the zeros of `tiling` so that a team's tiles take no more than `budget` bytes; false if that cannot be.
/// The state comes first: a chunk's B and C are loaded once for all its channels. Chunks shorter than shortest_chunk,
/// and tiles narrower than 8 channels (16 for warps), are a last resort.
template <Scalar T, class Exec>
bool fit(SsdScanTiling& tiling, const SsdScanShape& shape, std::int64_t chunk_size, std::int64_t budget) {
  const auto fits = [&](std::int64_t chunk, std::int64_t head_tile) {
    return scratch_bytes<T, Exec>(chunk, head_tile, shape.d_state) <= budget;
  };
  constexpr bool warps = impl::scan_tiles<Exec, T> == impl::ScanTiles::warps;
  constexpr std::int64_t least_tile = warps ? tile::cuda::tile_step : 8;
  const std::int64_t widest = tiling.head_tile > 0 ? tiling.head_tile : shape.head_dim;
  const std::int64_t longest = tiling.chunk > 0 ? tiling.chunk : std::min(chunk_size, longest_chunk<Exec>);
  for (const std::int64_t least :
       {std::min(shortest_chunk<T, Exec>, longest), std::min<std::int64_t>(4, longest), std::int64_t(1)}) {
    std::int64_t chunk = tiling.chunk > 0 ? longest : least;
    std::int64_t head_tile = widest;
    while (!fits(chunk, head_tile) && head_tile > least_tile && tiling.head_tile == 0) {
      head_tile = (head_tile + 1) / 2;
      // Halves of warps are whole tile steps.
      if (warps) head_tile = tile::cuda::whole_tiles(static_cast<int>(head_tile));
    }
    if (!fits(chunk, head_tile)) continue;
    for (const std::int64_t longer : {longest, longest / 2, longest / 4}) {
      if (longer > chunk && fits(longer, head_tile)) chunk = longer;
    }
    tiling.chunk = static_cast<int>(chunk);
    tiling.head_tile = static_cast<int>(head_tile);
    return true;
  }
  return false;
}

template <Scalar T, class Exec>
SsdScanTiling choose_tiling(const Exec& exec, const SsdScanShape& shape, std::int64_t chunk_size,
                            SsdScanTiling tiling) {
  const Kokkos::TeamPolicy<Exec> policy(exec, 1, 1);
  const auto limit = [&](int level) { return static_cast<std::int64_t>(policy.scratch_size_max(level)); };
  tiling.team_size = impl::team_threads<Exec>(tiling.team_size);
  tiling.scratch_level = impl::tile_scratch_level<Exec>;
  if constexpr (!is_host_execution<Exec>) {
    if (fit<T, Exec>(tiling, shape, chunk_size, impl::chip_bytes(limit(0)))) return tiling;
    tiling.scratch_level = 1;
  }
  if (fit<T, Exec>(tiling, shape, chunk_size, std::min(cache_bytes, limit(1)))) return tiling;
  KRAIT_REQUIRE(CapacityError, (fit<T, Exec>(tiling, shape, chunk_size, limit(1))),
                "krait::SsdScanPlan: d_state = ", shape.d_state, " needs ", scratch_bytes<T, Exec>(1, 8, shape.d_state),
                " bytes of scratch memory for a team, there are ", limit(1));
  return tiling;
}

/// Heads of a team. On a host as many as let every thread have a block, while their states stay in the second-level
/// cache: the more, the fewer times is read what the heads of a group share.
template <Scalar T, class Exec>
int choose_head_block(const Exec& exec, const SsdScanShape& shape, const SsdScanTiling& tiling) {
  if constexpr (!is_host_execution<Exec>) return 1;
  if (tiling.head_tile < shape.head_dim) return 1;
  const std::int64_t state =
      std::max<std::int64_t>(1, shape.head_dim * shape.d_state * std::int64_t{sizeof(accumulator_t<T>)});
  const std::int64_t most = std::max<std::int64_t>(1, states_bytes / state);
  const std::int64_t threads = std::max(1, exec.concurrency());
  const std::int64_t least_blocks = (shape.heads + most - 1) / most;
  const std::int64_t blocks = (std::max<std::int64_t>(1, shape.batch) * least_blocks + threads - 1) / threads * threads;
  const std::int64_t per_row = std::max<std::int64_t>(1, blocks / std::max<std::int64_t>(1, shape.batch));
  return static_cast<int>(std::max<std::int64_t>(1, (shape.heads + per_row - 1) / per_row));
}

/// How many of the heads that a team keeps lie side by side: those for which whole vectors hold the fewest channels
/// that are nobody's, bands of one or two vectors being slower by a quarter of one. No band has heads of two groups.
template <Scalar T, class Exec>
int choose_abreast(const SsdScanShape& shape, const SsdScanOptions& options, const SsdScanTiling& tiling) {
  if constexpr (impl::scan_tiles<Exec, T> != impl::ScanTiles::vectors) return 1;
  const bool one_group = options.first_head % options.heads_per_group + shape.heads <= options.heads_per_group;
  const auto fits = [&](int abreast) {
    return one_group || (options.heads_per_group % abreast == 0 && options.first_head % abreast == 0 &&
                         tiling.head_block % abreast == 0);
  };
  const auto cost = [&](std::int64_t heads) {
    const std::int64_t vectors = impl::SsdScanScratch::whole(heads * tiling.head_tile) / tile::scan_lanes;
    return heads == 0 ? 0 : 4 * vectors + (vectors < 3 ? 1 : 0);
  };
  const auto cost_of_block = [&](int abreast) {
    return tiling.head_block / abreast * cost(abreast) + cost(tiling.head_block % abreast);
  };
  if (tiling.abreast > 0) return fits(tiling.abreast) ? tiling.abreast : 1;
  int best = 1;
  for (int abreast = 2; abreast <= tiling.head_block && abreast * tiling.head_tile <= widest_band; ++abreast) {
    if (fits(abreast) && cost_of_block(abreast) < cost_of_block(best)) best = abreast;
  }
  return best;
}

/// Segments of a row when the caller leaves it to the plan: enough to keep the machine busy, none where the heads
/// do. Every segment is walked up to twice, so fewer than two teams' worth of idle threads gain nothing, and segments
/// of a few chunks neither.
template <Scalar T, class Exec>
std::int64_t choose_segments(const Exec& exec, const SsdScanShape& shape, const SsdScanTiling& tiling) {
  const std::int64_t tiles = (shape.head_dim + tiling.head_tile - 1) / tiling.head_tile;
  const std::int64_t teams = std::max<std::int64_t>(1, shape.batch * shape.heads * tiles);
  const std::int64_t bytes = scratch_bytes<T, Exec>(tiling.chunk, tiling.head_tile, shape.d_state);
  return std::clamp<std::int64_t>(shape.length / (8 * std::int64_t{tiling.chunk}), 1,
                                  std::max<std::int64_t>(1, impl::resident_teams(exec, bytes) / teams));
}

}  // namespace

template <Scalar T, class Exec>
SsdScanPlan<T, Exec>::SsdScanPlan(const Exec& exec, const SsdScanShape& shape, const SsdScanOptions& options,
                                  const impl::SsdScanTiling& tiling)
    : shape_(shape),
      options_(impl::complete_scan_options("krait::SsdScanPlan", shape, options)),
      workspace_("krait::ssd_scan_workspace") {
  tiling_ = choose_tiling<T>(exec, shape, options.chunk_size, tiling);
  options_.chunk_size = tiling_.chunk;
  if (tiling_.head_block == 0) tiling_.head_block = choose_head_block<T>(exec, shape, tiling_);
  tiling_.abreast = choose_abreast<T, Exec>(shape, options_, tiling_);
  const std::int64_t segments = options.segments > 0 ? options.segments : choose_segments<T>(exec, shape, tiling_);
  segment_length_ = std::max<std::int64_t>(1, (shape.length + segments - 1) / segments);
  options_.segments = std::max<std::int64_t>(1, (shape.length + segment_length_ - 1) / segment_length_);
  workspace_.reserve(exec, workspace_bytes());
}

template <Scalar T, class Exec>
std::size_t SsdScanPlan<T, Exec>::workspace_bytes() const {
  return impl::SsdScanWorkspace<T>(shape_, options_.segments).bytes;
}

#define KRAIT_INSTANTIATE(T, EXEC) template class SsdScanPlan<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
