// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The row functions of the gated norm, for a single thread of a host.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/norm_group.hpp>

namespace krait::tile::generic {

/// Sum of term(i) for i < count: partial sums side by side, so that the order is fixed and compilers make vectors.
template <class A, class Term>
KOKKOS_INLINE_FUNCTION A sum_of(std::int64_t count, const Term& term) {
  constexpr int lanes = 16;
  A partial[lanes] = {};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) partial[lane] += term(i + lane);
  }
  for (int lane = 0; i + lane < count; ++lane) partial[lane] += term(i + lane);
  A sum = 0;
  for (const A value : partial) sum += value;
  return sum;
}

/// values = v, what is normalised; squares[g]: the sum of its squares over group g.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_load(const NormGroup<T, A>& group, A* values, A* squares) {
  const std::int64_t features = group.features();
  if (group.gated_before()) {
    for (std::int64_t i = 0; i < features; ++i)
      values[i] = static_cast<A>(group.x[i]) * silu(static_cast<A>(group.z[i]));
  } else {
    for (std::int64_t i = 0; i < features; ++i) values[i] = static_cast<A>(group.x[i]);
  }
  for (std::int64_t g = 0; g < group.groups; ++g) {
    const A* const own = values + g * group.count;
    squares[g] = sum_of<A>(group.count, [&](std::int64_t i) { return own[i] * own[i]; });
  }
}

/// out = values scale weight + bias, and the gate if it comes last, with a scale for each group. Changes `values`; out
/// may be x.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_store(const NormGroup<T, A>& group, const A* scales, A* values, T* out) {
  const std::int64_t count = group.features();
  for (std::int64_t g = 0; g < group.groups; ++g) {
    for (std::int64_t i = g * group.count; i < (g + 1) * group.count; ++i) values[i] *= scales[g];
  }
  if (group.weight != nullptr) {
    for (std::int64_t i = 0; i < count; ++i) values[i] *= group.weight[i];
  }
  if (group.bias != nullptr) {
    for (std::int64_t i = 0; i < count; ++i) values[i] += group.bias[i];
  }
  if (group.gated_after()) {
    for (std::int64_t i = 0; i < count; ++i) values[i] *= silu(static_cast<A>(group.z[i]));
  }
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(values[i]);
}

/// The sums that the gradients need, and sigmoids = sigmoid(z) where there is a gate.
template <class T, class A>
KOKKOS_INLINE_FUNCTION NormSums<A> norm_gradient_sums(const NormGroup<T, A>& group, const T* dout, A* sigmoids) {
  const bool gated = group.z != nullptr;
  if (gated) {
    for (std::int64_t i = 0; i < group.count; ++i) sigmoids[i] = sigmoid(static_cast<A>(group.z[i]));
  }
  const auto gate = [&](std::int64_t i) { return gated ? static_cast<A>(group.z[i]) * sigmoids[i] : A(1); };
  const bool first = group.gated_before();
  return {sum_of<A>(group.count,
                    [&](std::int64_t i) {
                      const A v = static_cast<A>(group.x[i]) * (first ? gate(i) : A(1));
                      return v * v;
                    }),
          sum_of<A>(group.count, [&](std::int64_t i) {
            const A weight = group.weight == nullptr ? A(1) : group.weight[i];
            return static_cast<A>(group.x[i]) * gate(i) * weight * static_cast<A>(dout[i]);
          })};
}

/// The gradients, given the factor r that normalises the group and c, the mean of n weight dy. dx may be dout.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_gradient(const NormGroup<T, A>& group, const T* dout, const A* sigmoids, A r, A c,
                                          const NormGradients<T, A>& to) {
  const bool before = group.gated_before();
  const bool after = group.gated_after();
  for (std::int64_t i = 0; i < group.count; ++i) {
    const A z = before || after ? static_cast<A>(group.z[i]) : A(0);
    const A s = before || after ? sigmoids[i] : A(0);
    const A gate = before || after ? z * s : A(1);
    const A weight = group.weight == nullptr ? A(1) : group.weight[i];
    const A bias = group.bias == nullptr ? A(0) : group.bias[i];
    const A x = static_cast<A>(group.x[i]);
    const A g = static_cast<A>(dout[i]);
    const A n = (before ? x * gate : x) * r;
    const A y = n * weight + bias;
    const A dy = after ? g * gate : g;
    const A dv = (weight * dy - n * c) * r;
    if (to.dz != nullptr) to.dz[i] = static_cast<T>((before ? dv * x : g * y) * (s + gate * (A(1) - s)));
    if (to.out != nullptr) to.out[i] = static_cast<T>(after ? y * gate : y);
    if (to.dweight != nullptr) to.dweight[i] += dy * n;
    if (to.dbias != nullptr) to.dbias[i] += dy;
    to.dx[i] = static_cast<T>(before ? dv * gate : dv);
  }
}

}  // namespace krait::tile::generic
