// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace krait::tile::generic {

/// decay() in single precision, to 2 units in the last place. There is no branch and no call in it, so a compiler makes
/// vectors of a loop over it; the library's exp would take longer than all the rest of a convolution.
///
/// v = n ln 2 + r with |r| <= ln 2 / 2: n becomes the exponent, exp(r) is a polynomial. Bounds are set on the bits,
/// because selections between floats are turned into branches around the arithmetic.
KOKKOS_INLINE_FUNCTION float decay_by_bits(float v) {
  constexpr std::int32_t bound = 0x42ae0000;     // 87
  constexpr std::int32_t infinity = 0x7f800000;  // above it only NaN
  const auto bits = std::bit_cast<std::int32_t>(v);
  const std::int32_t size = bits & 0x7fffffff;
  const std::int32_t clamped = size & (bits >> 31);     // 0 where v is above 0
  const std::int32_t beyond = (bound - clamped) >> 31;  // all ones where true
  const std::int32_t nan = (infinity - size) >> 31;
  const float x = -std::bit_cast<float>((clamped & ~beyond) | (bound & beyond));

  constexpr float rounder = 0x1.8p23F;  // added to a number, leaves its nearest integer in the low bits
  const float shifted = x * 1.44269504F + rounder;
  const float n = shifted - rounder;
  const float r = (x - n * 0x1.62ep-1F) - n * 0x1.0bfbe8p-15F;  // ln 2 in two parts, the first product exact
  float p = 1.39261761e-3F;
  p = p * r + 8.36317307e-3F;
  p = p * r + 4.16665547e-2F;
  p = p * r + 1.66665770e-1F;
  p = p * r + 0.5F;
  p = p * (r * r) + r + 1.0F;
  const auto exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  const auto result = std::bit_cast<std::int32_t>(std::bit_cast<std::uint32_t>(p) + exponent);
  return std::bit_cast<float>((result & ~beyond) | (bits & nan));
}

/// exp(v) for a log-decay v <= 0. A rounding error above 0 counts as 0, and what would be denormal is 0: denormals are
/// slow and weigh nothing. NaN stays NaN.
template <class V>
KOKKOS_INLINE_FUNCTION V decay(V v) {
  if constexpr (std::is_same_v<V, float>) {
    KOKKOS_IF_ON_HOST((return decay_by_bits(v);))
  }
  constexpr V least = std::is_same_v<V, double> ? V(-708) : V(-87);
  return v < least ? V(0) : Kokkos::exp(v > V(0) ? V(0) : v);
}

/// log(1 + exp(v)). By log1p, so that it keeps its relative accuracy where exp(v) is far below 1.
template <class V>
KOKKOS_INLINE_FUNCTION V softplus(V v) {
  return v <= V(20) ? Kokkos::log1p(Kokkos::exp(v)) : v;
}

/// 1 / (1 + exp(-v)); the exponential never overflows.
template <class V>
KOKKOS_INLINE_FUNCTION V sigmoid(V v) {
  const V e = decay(-Kokkos::abs(v));
  return (v >= V(0) ? V(1) : e) / (V(1) + e);
}

/// v * sigmoid(v)
template <class V>
KOKKOS_INLINE_FUNCTION V silu(V v) {
  return v * sigmoid(v);
}

/// d silu / dv = sigmoid(v) (1 + v (1 - sigmoid(v))); 1 - sigmoid(v) is formed without cancellation.
template <class V>
KOKKOS_INLINE_FUNCTION V silu_derivative(V v) {
  const V e = decay(-Kokkos::abs(v));
  const V larger = V(1) / (V(1) + e);
  const V smaller = e * larger;
  return v >= V(0) ? larger * (V(1) + v * smaller) : smaller * (V(1) + v * larger);
}

}  // namespace krait::tile::generic
