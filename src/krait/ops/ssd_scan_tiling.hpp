// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How a scan is cut into tiles, and what of it lies in a team's scratch memory.

#include <cstddef>
#include <cstdint>

#include <Kokkos_Core.hpp>

#include <krait/tile/scan_chunk.hpp>

namespace krait::impl {

/// The piece of work of a team. A zero stands for the plan's own choice.
struct SsdScanTiling {
  int chunk = 0;          ///< tokens at a time
  int head_tile = 0;      ///< channels of a head whose state the team keeps
  int team_size = 0;      ///< threads
  int scratch_level = 0;  ///< 0 on chip, 1 in global memory; on hosts both are ordinary memory
  int head_block = 0;     ///< heads whose states the team keeps in the main sweep
};

/// Places of the tiles in scratch memory, counted in accumulators from its beginning. On a host rows are whole vectors,
/// and there is room to keep x and the products inside a chunk, which several heads share.
struct SsdScanScratch {
  KOKKOS_INLINE_FUNCTION SsdScanScratch(const SsdScanTiling& tiling, std::int64_t d_state, bool host)
      : row(host ? whole(tiling.head_tile) : tiling.head_tile),
        token_row(host ? whole(tiling.chunk) : tiling.chunk),
        b_row(host ? token_row : token_row + 1),
        sweeps(0),
        state(whole(tiling.head_block * sweep_size)),
        b(state + tiling.head_block * d_state * row),
        c(b + d_state * b_row),
        scores(c + tiling.chunk * d_state),
        weights(host ? scores + tiling.chunk * token_row : scores),
        x(weights + tiling.chunk * token_row),
        scaled(host ? x + tiling.chunk * row : x),
        y(scaled + tiling.chunk * row),
        skip(y + tiling.chunk * row),
        vectors(skip + row),
        count(vectors + vector_count * token_row) {}

  static KOKKOS_INLINE_FUNCTION std::int64_t whole(std::int64_t elements) {
    return (elements + tile::scan_lanes - 1) / tile::scan_lanes * tile::scan_lanes;
  }

  /// Per-token vectors: step size, log-decay (later: factor to the end of the chunk), its sums (high and low part),
  /// factor from the beginning of the chunk.
  static constexpr int vector_count = 5;

  /// Of what a head has in a sweep of its own length.
  static constexpr int sweep_size = 4;

  std::int64_t row;        ///< elements of a row of channels
  std::int64_t token_row;  ///< elements of a row of tokens
  std::int64_t b_row;      ///< the same of B, which is kept transposed; one more on a GPU, where transposing would meet
                           ///< one memory bank
  std::int64_t sweeps;     ///< (head_block, sweep_size)
  std::int64_t state;      ///< (head_block, N, row): transposed, so that its rows are channels, as those of x and y
  std::int64_t b;          ///< (N, b_row)
  std::int64_t c;          ///< (chunk, N)
  std::int64_t scores;     ///< (chunk, token_row)
  std::int64_t weights;    ///< (chunk, token_row)
  std::int64_t x;          ///< (chunk, row)
  std::int64_t scaled;     ///< (chunk, row)
  std::int64_t y;          ///< (chunk, row)
  std::int64_t skip;       ///< (row)
  std::int64_t vectors;
  std::int64_t count;
};

}  // namespace krait::impl
