// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <type_traits>

namespace krait::tile::generic {

/// log(1 + exp(v)). By log1p, so that it keeps its relative accuracy where exp(v) is far below 1.
template <class V>
KOKKOS_INLINE_FUNCTION V softplus(V v) {
  return v <= V(20) ? Kokkos::log1p(Kokkos::exp(v)) : v;
}

/// 1 / (1 + exp(-v)); the exponential never overflows.
template <class V>
KOKKOS_INLINE_FUNCTION V sigmoid(V v) {
  const V e = Kokkos::exp(-Kokkos::abs(v));
  return (v >= V(0) ? V(1) : e) / (V(1) + e);
}

/// v * sigmoid(v)
template <class V>
KOKKOS_INLINE_FUNCTION V silu(V v) {
  return v * sigmoid(v);
}

/// exp(v) for a log-decay v <= 0. A rounding error above 0 counts as 0, and what would be denormal is 0: denormals are
/// slow and weigh nothing.
template <class V>
KOKKOS_INLINE_FUNCTION V decay(V v) {
  constexpr V least = std::is_same_v<V, double> ? V(-708) : V(-87);
  return v < least ? V(0) : Kokkos::exp(v < V(0) ? v : V(0));
}

}  // namespace krait::tile::generic
