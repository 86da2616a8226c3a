// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How a scan is cut into tiles, and what of it lies in a team's scratch memory.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <Kokkos_Core.hpp>

#include <krait/core/scalars.hpp>
#include <krait/tile/scan_chunk.hpp>
#include <krait/tile/warps.hpp>

namespace krait::impl {

/// The piece of work of a team. A zero stands for the plan's own choice.
struct SsdScanTiling {
  int chunk = 0;          ///< tokens at a time
  int head_tile = 0;      ///< channels of a head whose state the team keeps
  int team_size = 0;      ///< threads
  int scratch_level = 0;  ///< 0 on chip, 1 in global memory; on hosts both are ordinary memory
  int head_block = 0;     ///< heads whose states the team keeps in the main sweep
  int abreast = 0;        ///< heads of a group whose channels lie side by side in the tiles; 1 but on hosts
};

/// Who works on the tiles of a team, which decides how they lie.
enum class ScanTiles {
  vectors,   ///< threads of a host: rows are whole vectors, products have room of their own
  portable,  ///< any threads
  warps      ///< of a GPU with tensor cores: see tile/cuda/fragments.hpp; outputs have room of their own
};

template <class Exec, Scalar T>
inline constexpr ScanTiles scan_tiles = tile::has_warp_pieces<Exec, T>   ? ScanTiles::warps
                                        : tile::has_host_layout<Exec, T> ? ScanTiles::vectors
                                                                         : ScanTiles::portable;

/// Places of the tiles in scratch memory, counted in accumulators from its beginning.
struct SsdScanScratch {
  template <class Exec, Scalar T>
  static SsdScanScratch of(const SsdScanTiling& tiling, std::int64_t d_state) {
    if constexpr (scan_tiles<Exec, T> == ScanTiles::warps) {
      return for_warps<T>(tiling, d_state);
    } else {
      return plain(tiling, d_state, scan_tiles<Exec, T> == ScanTiles::vectors);
    }
  }

  static std::int64_t whole(std::int64_t elements) {
    return (elements + tile::scan_lanes - 1) / tile::scan_lanes * tile::scan_lanes;
  }

  /// The same, and one more where the rows would meet few sets of a first-level cache.
  static std::int64_t spread(std::int64_t elements) {
    const std::int64_t row = whole(elements);
    return row % (std::int64_t{8} * tile::scan_lanes) == 0 ? row + tile::scan_lanes : row;
  }

  /// Per-token vectors: step size, log-decay (later: factor to the end of the chunk), its sums (high and low part),
  /// factor from the beginning of the chunk.
  static constexpr int vector_count = 5;

  /// Of what a head has in a sweep of its own length.
  static constexpr int sweep_size = 4;

  // From one row to the next, in elements.
  std::int64_t row;        ///< of channels, in x and scaled
  std::int64_t token_row;  ///< of tokens, in scores and weights; the vectors of a head are as long
  std::int64_t b_row;      ///< of B. One more on a GPU without warps, where transposing would meet one memory bank
  std::int64_t c_row;
  std::int64_t y_row;
  std::int64_t state_row;
  std::int64_t state_size;  ///< of the heads abreast, in accumulators
  std::int64_t vector;      ///< of the heads abreast

  // What every sweep has.
  std::int64_t sweeps;  ///< (head_block, sweep_size)
  std::int64_t state;   ///< (head_block / abreast, N, state_row): transposed, so that its rows are channels, as those
                        ///< of x and y. Of warps (head_block, P, state_row)
  std::int64_t b;       ///< (N, b_row); of warps (chunk, b_row)
  std::int64_t x;       ///< (chunk, row)
  std::int64_t vectors;
  std::int64_t sweep_count;  ///< elements so far

  // What outputs take.
  std::int64_t c;        ///< (chunk, c_row)
  std::int64_t scores;   ///< (chunk, token_row); warps keep none
  std::int64_t weights;  ///< (chunk, token_row)
  std::int64_t scaled;   ///< (chunk, row)
  std::int64_t y;        ///< (chunk, y_row)
  std::int64_t skip;     ///< (row)
  std::int64_t through;  ///< (row), on a host
  std::int64_t count;

 private:
  static SsdScanScratch plain(const SsdScanTiling& tiling, std::int64_t d_state, bool host) {
    SsdScanScratch s;
    const std::int64_t abreast = std::max(1, tiling.abreast);
    const std::int64_t channels = (abreast - 1) * tiling.head_tile + whole(tiling.head_tile);
    s.row = s.y_row = host ? spread(channels) : tiling.head_tile;
    s.state_row = host ? whole(channels) : tiling.head_tile;
    s.token_row = host ? whole(tiling.chunk) : tiling.chunk;
    s.b_row = host ? s.token_row : s.token_row + 1;
    s.c_row = d_state;
    s.state_size = d_state * s.state_row;
    s.vector = abreast * s.token_row;
    s.sweeps = 0;
    s.state = whole(std::int64_t{tiling.head_block} * sweep_size);
    s.b = s.state + (tiling.head_block + abreast - 1) / abreast * s.state_size;
    s.x = s.b + d_state * s.b_row;
    s.vectors = s.x + tiling.chunk * s.row;
    s.sweep_count = s.vectors + vector_count * s.vector;
    s.c = s.sweep_count;
    s.scores = s.c + tiling.chunk * d_state;
    // On a host there is room to keep x and the products inside a chunk, which several heads share.
    s.weights = host ? s.scores + tiling.chunk * s.token_row : s.scores;
    const std::int64_t behind = s.weights + tiling.chunk * s.token_row;
    s.scaled = host ? behind : s.x;
    s.y = host ? s.scaled + tiling.chunk * s.row : behind;
    s.skip = s.y + tiling.chunk * s.row;
    s.through = s.skip + s.row;
    s.count = host ? s.through + s.row : s.through;
    return s;
  }

  template <Scalar T>
  static SsdScanScratch for_warps(const SsdScanTiling& tiling, std::int64_t d_state) {
    const int tokens = tile::cuda::whole_tiles(tiling.chunk);
    const int channels = tile::cuda::whole_tiles(tiling.head_tile);
    const int N = static_cast<int>(d_state);
    const auto operands = [](std::int64_t elements) {
      return elements * static_cast<std::int64_t>(sizeof(T)) / static_cast<std::int64_t>(sizeof(accumulator_t<T>));
    };
    SsdScanScratch s;
    s.row = s.y_row = tile::cuda::tile_pitch(tiling.head_tile);
    s.token_row = tile::cuda::operand_pitch<T>(tiling.chunk);
    s.b_row = s.c_row = tile::cuda::operand_pitch<T>(N);
    s.state_row = tile::cuda::tile_pitch(N);
    s.state_size = channels * s.state_row;
    s.vector = s.token_row;
    s.sweeps = 0;
    s.state = whole(std::int64_t{tiling.head_block} * sweep_size);
    s.b = s.state + tiling.head_block * s.state_size;
    s.x = s.b + operands(tokens * s.b_row);
    s.vectors = s.x + operands(tokens * s.row);
    s.sweep_count = s.vectors + vector_count * s.token_row;
    s.c = s.sweep_count;
    s.weights = s.scores = s.c + operands(tokens * s.c_row);
    s.scaled = s.x;
    s.y = s.weights + operands(tokens * s.token_row);
    s.skip = s.y + tokens * s.y_row;
    s.through = s.count = s.skip + s.row;
    return s;
  }
};

}  // namespace krait::impl
