// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How a scan is cut into tiles, and what of it lies in a team's scratch memory.

#include <cstddef>
#include <cstdint>

#include <Kokkos_Core.hpp>

namespace krait::impl {

/// The piece of work of a team. A zero stands for the plan's own choice.
struct SsdScanTiling {
  int chunk = 0;          ///< tokens at a time
  int head_tile = 0;      ///< channels of a head whose state the team keeps
  int team_size = 0;      ///< threads
  int scratch_level = 0;  ///< 0 on chip, 1 in global memory; on hosts both are ordinary memory
};

/// Places of the tiles in scratch memory, counted in accumulators from its beginning.
struct SsdScanScratch {
  KOKKOS_INLINE_FUNCTION SsdScanScratch(std::int64_t chunk, std::int64_t head_tile, std::int64_t d_state,
                                        std::int64_t pad)
      : b_stride(chunk + pad),
        state(0),
        b(state + d_state * head_tile),
        c(b + d_state * b_stride),
        weights(c + chunk * d_state),
        x(weights + chunk * chunk),
        y(x + chunk * head_tile),
        vectors(y + chunk * head_tile),
        count(vectors + vector_count * chunk) {}

  /// Per-token vectors: step size, log-decay (later: factor to the end of the chunk), its sums (high and low part),
  /// factor from the beginning of the chunk.
  static constexpr int vector_count = 5;

  std::int64_t
      b_stride;          ///< B is kept transposed; padded by one on a GPU, where transposing would meet one memory bank
  std::int64_t state;    ///< (N, head_tile): transposed, so that its rows are channels, as those of x and y
  std::int64_t b;        ///< (N, chunk)
  std::int64_t c;        ///< (chunk, N)
  std::int64_t weights;  ///< (chunk, chunk)
  std::int64_t x;        ///< (chunk, head_tile)
  std::int64_t y;        ///< (chunk, head_tile)
  std::int64_t vectors;
  std::int64_t count;
};

}  // namespace krait::impl
