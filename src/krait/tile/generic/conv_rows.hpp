// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The row functions of the causal convolution, for a single thread of a host.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/conv_strip.hpp>
#include <krait/tile/generic/vector_math.hpp>

namespace krait::tile::generic {

/// Rows of a few channels in a local array. Compilers make vectors of loops over few pointers and such an array.
template <class A>
struct ConvTile {
  static constexpr int width = 64;
  static constexpr int tokens = 16;

  A rows[max_conv_taps - 1 + tokens][width];

  KOKKOS_INLINE_FUNCTION void load(int first_row, int count, const A* from, std::int64_t pitch, int columns) {
    for (int w = 0; w < count; ++w) {
      for (int c = 0; c < columns; ++c) rows[first_row + w][c] = from[w * pitch + c];
    }
  }
  KOKKOS_INLINE_FUNCTION void store(int first_row, int count, A* to, std::int64_t pitch, int columns) const {
    for (int w = 0; w < count; ++w) {
      for (int c = 0; c < columns; ++c) to[w * pitch + c] = rows[first_row + w][c];
    }
  }
};

/// Calls body(first, columns, t, tokens) for all channels and, within them, all tokens.
template <class A, class Body>
KOKKOS_INLINE_FUNCTION void for_conv_tiles(std::int64_t channels, int count, const Body& body) {
  using Tile = ConvTile<A>;
  for (std::int64_t first = 0; first < channels; first += Tile::width) {
    const auto columns = static_cast<int>(channels - first < Tile::width ? channels - first : Tile::width);
    for (int t = 0; t < count; t += Tile::tokens)
      body(first, columns, t, count - t < Tile::tokens ? count - t : Tile::tokens);
  }
}

/// sums = start + sum_w weight_w row_w for w < taps, with rows `step` apart.
template <class A>
KOKKOS_INLINE_FUNCTION void add_taps(const ConvStrip<A>& strip, std::int64_t first, int columns, int first_tap,
                                     int taps, const A* row, std::int64_t step, A* sums) {
  for (int w = 0; w < taps; ++w) {
    const A* weight = strip.weight + (first_tap + w) * strip.pitch + first;
    const A* inputs = row + w * step;
    for (int c = 0; c < columns; ++c) sums[c] += weight[c] * inputs[c];
  }
}

/// Inputs of the tokens behind those before them, the sums of each token, and the history of what follows.
/// on_sums(t, sums) gets bias + sum_w weight_w X(t - (taps-1) + w), w ascending, for the tokens of the tile.
template <class T, class A, class OnSums>
KOKKOS_INLINE_FUNCTION void convolve_tile(const ConvStrip<A>& strip, const T* const* x, A* history, std::int64_t first,
                                          int columns, int tokens, ConvTile<A>& inputs, const OnSums& on_sums) {
  const int before = strip.taps - 1;
  inputs.load(0, before, history + first, strip.pitch, columns);
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < columns; ++c) inputs.rows[before + t][c] = static_cast<A>(x[t][first + c]);
  }
  for (int t = 0; t < tokens; ++t) {
    A sums[ConvTile<A>::width];
    for (int c = 0; c < columns; ++c) sums[c] = strip.bias[first + c];
    add_taps(strip, first, columns, 0, strip.taps, inputs.rows[t], ConvTile<A>::width, sums);
    on_sums(t, sums);
  }
  inputs.store(tokens, before, history + first, strip.pitch, columns);
}

/// out = activation(bias + sum_w weight_w X(t - (taps-1) + w)) for each of the tokens.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_rows(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out) {
  for_conv_tiles<A>(strip.channels, tokens.count, [&](std::int64_t first, int columns, int begin, int count) {
    ConvTile<A> inputs;
    convolve_tile(strip, tokens.x + begin, tokens.history, first, columns, count, inputs, [&](int t, const A* sums) {
      T* row = out[begin + t] + first;
      if (strip.silu) {
        for (int c = 0; c < columns; ++c) row[c] = static_cast<T>(silu(sums[c]));
      } else {
        for (int c = 0; c < columns; ++c) row[c] = static_cast<T>(sums[c]);
      }
    });
  });
}

/// The gradients of ConvGradientTokens. A gradient of an input adds the latest q first, a sum over tokens the earliest.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_gradient_rows(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens) {
  const int before = strip.taps - 1;
  for_conv_tiles<A>(strip.channels, tokens.count, [&](std::int64_t first, int columns, int begin, int count) {
    ConvTile<A> inputs;
    ConvTile<A> q;
    q.load(0, before, tokens.q + first, strip.pitch, columns);
    convolve_tile(strip, tokens.x + begin, tokens.history, first, columns, count, inputs, [&](int t, const A* sums) {
      const T* dout = tokens.dout[begin + t] + first;
      A* newest = q.rows[before + t];
      if (strip.silu) {
        for (int c = 0; c < columns; ++c) newest[c] = static_cast<A>(dout[c]) * silu_derivative(sums[c]);
      } else {
        for (int c = 0; c < columns; ++c) newest[c] = static_cast<A>(dout[c]);
      }
      if (tokens.dweight != nullptr) {
        for (int c = 0; c < columns; ++c) tokens.dbias[first + c] += newest[c];
        for (int w = 0; w < strip.taps; ++w) {
          A* dweight = tokens.dweight + w * strip.pitch + first;
          for (int c = 0; c < columns; ++c) dweight[c] += newest[c] * inputs.rows[t + w][c];
        }
      }
      if (tokens.dx != nullptr) {
        A gradient[ConvTile<A>::width] = {};
        add_taps(strip, first, columns, 0, strip.taps, newest, -ConvTile<A>::width, gradient);
        T* dx = tokens.dx[begin + t] + first;
        for (int c = 0; c < columns; ++c) dx[c] = static_cast<T>(gradient[c]);
      }
    });
    q.store(count, before, tokens.q + first, strip.pitch, columns);
  });
}

/// The gradient of one input from fewer than `taps` tokens: dx = incoming + sum_i weight_(first_tap + i) q_i with the
/// rows q of the last taps - 1 tokens, i = 0 the latest; incoming may be nullptr. First tap 0: the latest token is
/// taps - 1 behind the input, and the tokens before the input do not exist; 1: the tokens behind those rows do not.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_edge_row(const ConvStrip<A>& strip, const A* q, int first_tap, const A* incoming,
                                          T* dx) {
  const int before = strip.taps - 1;
  for_conv_tiles<A>(strip.channels, 1, [&](std::int64_t first, int columns, int, int) {
    A gradient[ConvTile<A>::width];
    for (int c = 0; c < columns; ++c) gradient[c] = incoming == nullptr ? A(0) : incoming[first + c];
    add_taps(strip, first, columns, first_tap, before, q + (before - 1) * strip.pitch + first, -strip.pitch, gradient);
    for (int c = 0; c < columns; ++c) dx[first + c] = static_cast<T>(gradient[c]);
  });
}

}  // namespace krait::tile::generic
