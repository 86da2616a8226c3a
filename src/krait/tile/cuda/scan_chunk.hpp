// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// A chunk of tokens of one head by a team of warps. Everything of type E in a ScanChunk lies by tokens here, b too,
/// and the state by channels, all with the pitches of fragments.hpp.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/product.hpp>
#include <krait/tile/cuda/vector_math.hpp>
#include <krait/tile/cuda/warp.hpp>
#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/scan_chunk.hpp>

namespace krait::tile::cuda {

/// Two neighbours in a tile, the first at an even column.
template <class E>
KOKKOS_INLINE_FUNCTION void load_pair(const E* from, float& first, float& second) {
  if constexpr (sizeof(E) == 2) {
    const std::uint32_t pair = *reinterpret_cast<const std::uint32_t*>(from);
    first = unpack<E>(pair, 0);
    second = unpack<E>(pair, 1);
  } else {
#if defined(__CUDA_ARCH__)
    const float2 pair = *reinterpret_cast<const float2*>(from);
    first = pair.x;
    second = pair.y;
#else
    first = from[0];
    second = from[1];
#endif
  }
}
template <class E>
KOKKOS_INLINE_FUNCTION void store_pair(E* to, float first, float second) {
  if constexpr (sizeof(E) == 2) {
    *reinterpret_cast<std::uint32_t*>(to) = pack<E>(first, second);
  } else {
#if defined(__CUDA_ARCH__)
    *reinterpret_cast<float2*>(to) = make_float2(first, second);
#else
    to[0] = first;
    to[1] = second;
#endif
  }
}

/// See ChunkDecays; by one warp. The sums are as accurate as those of generic::cumulative_sum(), in another order.
template <class Exec>
KOKKOS_INLINE_FUNCTION void chunk_decays(const Warp<Exec>& warp, const ChunkDecays<float>& k) {
  constexpr int slots = Warp<Exec>::slots;
  float last_high = 0.0F;
  float last_low = 0.0F;
  const auto add = [](float high, float low, float& to_high, float& to_low) {
    const float sum = high + to_high;
    const float part = sum - high;
    to_low += low + ((high - (sum - part)) + (to_high - part));
    to_high = sum;
  };
  for (int from = 0; from < k.tokens; from += warp_size) {
    float high[slots], low[slots];
    for (int s = 0; s < slots; ++s) {
      const int j = from + warp.lane(s);
      const float delta = j < k.tokens ? generic::step_size(k.rule, k.steps[j]) : 0.0F;
      if (j < k.tokens) k.steps[j] = delta;
      high[s] = delta * k.log_rate;
      low[s] = 0.0F;
    }
    for (int distance = 1; distance < warp_size; distance *= 2) {
      float before_high[slots], before_low[slots];
      warp.shift_up(distance, high, before_high);
      warp.shift_up(distance, low, before_low);
      for (int s = 0; s < slots; ++s) {
        if (warp.lane(s) >= distance) add(before_high[s], before_low[s], high[s], low[s]);
      }
    }
    for (int s = 0; s < slots; ++s) {
      const int j = from + warp.lane(s);
      add(last_high, last_low, high[s], low[s]);
      if (j >= k.tokens) continue;
      k.high[j] = high[s];
      k.low[j] = low[s];
    }
    last_high = warp.broadcast(warp_size - 1, high);
    last_low = warp.broadcast(warp_size - 1, low);
  }
  for (int from = 0; from < k.tokens; from += warp_size) {
    for (int s = 0; s < slots; ++s) {
      const int j = from + warp.lane(s);
      if (j >= k.tokens) continue;
      k.enter[j] = decay(k.high[j] + k.low[j]);
      k.leave[j] = decay((last_high - k.high[j]) + (last_low - k.low[j])) * k.steps[j];
    }
  }
}

/// How the factors exp(sums_m - sums_k) of a block of pairs are formed.
enum class Exponentials {
  factored,  ///< below the diagonal as a product of two, split at the token before the block's rows: both are <= 1
  direct     ///< one by one
};

/// The sides of a warp's block in all products of a chunk.
inline constexpr int block_side = 32;

template <class Exec>
using BlockSums = Sums<Exec, float, block_side / mma_rows, block_side / mma_columns>;

/// The weights of the pairs of a block, from the products <C_m, B_k>: times the decay between them and the step size;
/// 0 above the diagonal and behind the last token. k0 <= m0.
template <Exponentials How, class Exec, class E>
KOKKOS_INLINE_FUNCTION void weigh_block(const Warp<Exec>& warp, const ScanChunk<float, E>& k, int m0, int k0,
                                        BlockSums<Exec>& sums) {
  constexpr int rows = 2 * block_side / mma_rows;
  constexpr int columns = 2 * block_side / mma_columns;
  if (How == Exponentials::factored && k0 < m0) {
    const float anchor_high = k.high[m0 - 1];
    const float anchor_low = k.low[m0 - 1];
    for (int s = 0; s < Warp<Exec>::slots; ++s) {
      const Place mine = d_place(warp.lane(s), 0);
      float down[rows], across[columns];
      KRAIT_UNROLLED
      for (int i = 0; i < rows; ++i) {
        const int m = at_most(m0 + 8 * i + mine.row, k.tokens - 1);
        down[i] = decay((k.high[m] - anchor_high) + (k.low[m] - anchor_low));
      }
      // All of these come before the anchor, so there are so many tokens.
      KRAIT_UNROLLED
      for (int j = 0; j < columns; ++j) {
        const int to = k0 + j / 2 * mma_columns + mine.column + j % 2;
        across[j] = decay((anchor_high - k.high[to]) + (anchor_low - k.low[to])) * k.steps[to];
      }
      KRAIT_UNROLLED
      for (int i = 0; i < rows; ++i) {
        KRAIT_UNROLLED
        for (int j = 0; j < columns; ++j) sums.at[i / 2][j / 2][s][2 * (i % 2) + j % 2] *= down[i] * across[j];
      }
    }
  } else {
    const auto factor = [&](int m, int to) {
      if (to > m || m >= k.tokens) return 0.0F;
      return decay((k.high[m] - k.high[to]) + (k.low[m] - k.low[to])) * k.steps[to];
    };
    sums.for_pairs(warp, [&](int row, int column, float& first, float& second) {
      first *= factor(m0 + row, k0 + column);
      second *= factor(m0 + row, k0 + column + 1);
    });
  }
  sums.for_pairs(warp, [&](int row, int column, float& first, float& second) {
    const int m = m0 + row;
    const int to = k0 + column;
    const int last = whole_tiles(k.tokens);
    if (m < last && to < last) store_pair(k.weights + m * k.token_row + to, first, second);
  });
}

/// The place of a block of pairs, of those on and below the diagonal, row by row.
KOKKOS_INLINE_FUNCTION constexpr Place pair_block(int index) {
  int row = 0;
  while (index > row) index -= ++row;
  return {row * block_side, index * block_side};
}

/// Decays, by the first warp, and weights of all pairs of the chunk, by all: the products need no decays, and the first
/// warp is the last to be given one. Blocks above the diagonal are left alone.
template <Exponentials How, class Member, class Exec, class E>
KOKKOS_INLINE_FUNCTION void chunk_weights(const Member& team, const Warp<Exec>& warp, const ProductKind& kind,
                                          const ScanChunk<float, E>& k) {
  const int inner = whole_tiles(k.d_state);
  const int extent = whole_tiles(k.tokens);
  const Operand<E, Stored::by_rows> c{k.c, k.c_row, extent};
  const Operand<E, Stored::by_columns> b{k.b, k.b_row, extent};
  const int rows = (k.tokens + block_side - 1) / block_side;
  const int blocks = rows * (rows + 1) / 2;
  if (warp.index == 0) {
    chunk_decays(warp, ChunkDecays<float>{k.tokens, k.log_rate, k.rule, k.steps, k.high, k.low, k.enter, k.leave});
  }
  KRAIT_ROLLED
  for (int first = 0; first < blocks; first += warp.count) {
    const int block = first + (warp.count - 1 - warp.index);
    const Place place = pair_block(block < blocks ? block : 0);
    BlockSums<Exec> sums;
    sums.clear(warp);
    if (block < blocks) multiply(warp, kind, inner, c, place.row, b, place.column, sums);
    if (first == 0) team.team_barrier();
    if (block < blocks) weigh_block<How>(warp, k, place.row, place.column, sums);
  }
}

/// y = enter (C S) + weights x + skip x
template <class Exec, class E>
KOKKOS_INLINE_FUNCTION void chunk_outputs(const Warp<Exec>& warp, const ProductKind& kind,
                                          const ScanChunk<float, E>& k) {
  const int extent = whole_tiles(k.tokens);
  const int channels = whole_tiles(k.channels);
  const Operand<E, Stored::by_rows> c{k.c, k.c_row, extent}, weights{k.weights, k.token_row, extent},
      x{k.x, k.row, channels};
  const Operand<float, Stored::by_columns> state{k.state, k.state_row, channels};
  const int across = (k.channels + block_side - 1) / block_side;
  const int blocks = (k.tokens + block_side - 1) / block_side * across;
  KRAIT_ROLLED
  for (int block = warp.index; block < blocks; block += warp.count) {
    const int m0 = block / across * block_side;
    const int p0 = block % across * block_side;
    BlockSums<Exec> sums;
    sums.clear(warp);
    multiply(warp, kind, whole_tiles(k.d_state), c, m0, state, p0, sums);
    sums.for_pairs(warp, [&](int row, int, float& first, float& second) {
      const float enter = k.enter[at_most(m0 + row, k.tokens - 1)];
      first *= enter;
      second *= enter;
    });
    multiply(warp, kind, at_most(m0 + block_side, extent), weights, m0, x, p0, sums);
    sums.for_pairs(warp, [&](int row, int column, float first, float second) {
      const int m = m0 + row;
      const int p = p0 + column;
      if (m >= k.tokens || p >= k.channels) return;
      if (k.skip != nullptr) {
        float left, right;
        load_pair(k.x + m * k.row + p, left, right);
        first += k.skip[p] * left;
        second += k.skip[p + 1] * right;
      }
      store_pair(k.y + m * k.y_row + p, first, second);
    });
  }
}

/// S = decay S + x b, of rows of channels: the state by channels, x and b by tokens.
template <class Exec, class E>
KOKKOS_INLINE_FUNCTION void advance_state(const Warp<Exec>& warp, const ProductKind& kind, const StateUpdate<E>& u) {
  const int channels = whole_tiles(u.channels);
  const int inner = whole_tiles(u.tokens);
  const Operand<E, Stored::by_columns> x{u.x, u.row, channels};
  const Operand<E, Stored::by_rows> b{u.b, u.b_row, whole_tiles(u.d_state)};
  const int across = (u.d_state + block_side - 1) / block_side;
  const int blocks = (u.channels + block_side - 1) / block_side * across;
  KRAIT_ROLLED
  for (int block = warp.index; block < blocks; block += warp.count) {
    const int p0 = block / across * block_side;
    const int n0 = block % across * block_side;
    BlockSums<Exec> sums;
    const auto inside = [&](int row, int column) { return p0 + row < u.channels && n0 + column < u.d_state; };
    const auto place = [&](int row, int column) { return u.state + (p0 + row) * u.state_row + n0 + column; };
    sums.for_pairs(warp, [&](int row, int column, float& first, float& second) {
      first = second = 0.0F;
      if (inside(row, column)) load_pair(place(row, column), first, second);
      first *= u.decay;
      second *= u.decay;
    });
    multiply(warp, kind, inner, x, p0, b, n0, sums);
    sums.for_pairs(warp, [&](int row, int column, float first, float second) {
      if (inside(row, column)) store_pair(place(row, column), first, second);
    });
  }
}

/// a(i, j) *= factors[i], in a tile of operands.
template <class Exec, class E>
KOKKOS_INLINE_FUNCTION void scale_tile_rows(const Warp<Exec>& warp, int rows, int columns, const float* factors, E* a,
                                            int pitch) {
  for (int i = warp.index; i < rows; i += warp.count) {
    for (int s = 0; s < Warp<Exec>::slots; ++s) {
      for (int j = 2 * warp.lane(s); j < columns; j += 2 * warp_size) {
        E* pair = a + i * pitch + j;
        float first, second;
        load_pair(pair, first, second);
        store_pair(pair, first * factors[i], second * factors[i]);
      }
    }
  }
}

/// See ScanChunk; it does not read the scores. With barriers in it, the last thing it does is one.
template <Exponentials How = Exponentials::factored, class Member, class E>
KOKKOS_INLINE_FUNCTION void scan_chunk(const Member& team, const ProductKind& kind, const ScanChunk<float, E>& k) {
  const Warp<typename Member::execution_space> warp(team);
  chunk_weights<How>(team, warp, kind, k);
  team.team_barrier();
  chunk_outputs(warp, kind, k);
  team.team_barrier();
  scale_tile_rows(warp, k.tokens, k.channels, k.leave, k.x, k.row);
  team.team_barrier();
  advance_state(warp, kind,
                StateUpdate<E>{k.tokens, k.d_state, k.channels, k.enter[k.tokens - 1], k.x, k.row, k.b, k.b_row,
                               k.state, k.state_row});
  team.team_barrier();
}

}  // namespace krait::tile::cuda
