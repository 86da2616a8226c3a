// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The memory in which a host thread convolves a strip of channels at unit stride, forward and backward alike.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/ops/causal_conv1d_input.hpp>
#include <krait/tile/rows.hpp>

namespace krait::impl {

/// Extents of a strip with room for `Taps` taps: rows of a page, or less where there are many of them, so that all of
/// them stay in the cache of a core. The rows begin in different sets of that cache.
template <class A, int Taps>
struct ConvStripShape {
  static constexpr int width = (Taps <= 4 ? 4096 : 1024) / int{sizeof(A)};
  static constexpr int pitch = width + 64 / int{sizeof(A)};
};

/// Tokens that go to the row functions in one call, and how many of those behind them go along to be asked for.
inline constexpr int conv_tokens_at_once = 16;
inline constexpr int conv_tokens_next = 8;

/// Those of `left` tokens that go along behind the first `count`.
KOKKOS_INLINE_FUNCTION int conv_next(std::int64_t left, int count) {
  return static_cast<int>(left - count < conv_tokens_next ? left - count : conv_tokens_next);
}

/// The parameters of a strip, and the inputs before its next token.
template <Scalar T, class Exec, int Taps>
struct ConvStripInput {
  using A = accumulator_t<T>;
  using Shape = ConvStripShape<A, Taps>;

  const ConvInput<T, Exec>& input;
  std::int64_t channel;  // the first
  int columns;
  bool past_cache;
  alignas(64) A weight[Taps][Shape::pitch];
  alignas(64) A bias[Shape::pitch];
  alignas(64) A history[Taps][Shape::pitch];

  KOKKOS_FUNCTION ConvStripInput(const ConvInput<T, Exec>& problem, std::int64_t strip, bool stream)
      : input(problem),
        channel(strip * Shape::width),
        columns(
            static_cast<int>(problem.channels - channel < Shape::width ? problem.channels - channel : Shape::width)),
        past_cache(stream) {
    for (int w = 0; w < problem.taps; ++w) {
      for (int c = 0; c < columns; ++c) weight[w][c] = problem.weight(channel + c, w);
    }
    for (int c = 0; c < columns; ++c) bias[c] = problem.bias_of(channel + c);
  }

  [[nodiscard]] KOKKOS_FUNCTION tile::ConvStrip<A> strip() const {
    return {columns, Shape::pitch, input.taps, input.silu, past_cache, weight[0], bias};
  }

  /// Goes to token t of the run.
  KOKKOS_FUNCTION void enter(const Run& run, std::int64_t t) {
    for (int w = 0; w + 1 < input.taps; ++w) {
      for (int c = 0; c < columns; ++c) history[w][c] = input.input_before(run, t, w, channel + c);
    }
  }

  /// The strip in the row of a token, and in that of the place where token t of x and dx lies.
  template <class View>
  [[nodiscard]] KOKKOS_FUNCTION auto* row(const View& view, std::int64_t b, std::int64_t t) const {
    return &view(b, t, channel);
  }
  template <class View>
  [[nodiscard]] KOKKOS_FUNCTION auto* placed_row(const View& view, std::int64_t b, std::int64_t t) const {
    return &view(b, input.place(t), channel);
  }

  KOKKOS_FUNCTION void clear(T* to) const {
    for (int c = 0; c < columns; ++c) to[c] = T(0);
  }
};

/// Strips of a row of channels.
template <class A, int Taps>
KOKKOS_FUNCTION std::int64_t conv_strips(std::int64_t channels) {
  constexpr int width = ConvStripShape<A, Taps>::width;
  return (channels + width - 1) / width;
}

}  // namespace krait::impl
