// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Scalar products of the rows, or of the columns, of two tiles. The order of every sum is fixed: it depends neither
/// on the size of the team nor on what the compiler makes of the loop.

#include <Kokkos_Core.hpp>

#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile::generic {

/// result[i] = sum over j of a(i, j) * b(i, j), with unit column strides. Summed in 16 interleaved parts, which the
/// compiler can keep in vectors.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void row_dots(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b, V* result) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, rows), [=](int i) {
    constexpr int lanes = 16;
    const V* KOKKOS_RESTRICT left = a.data + i * a.row;
    const V* KOKKOS_RESTRICT right = b.data + i * b.row;
    V part[lanes] = {};
    int j = 0;
    for (; j + lanes <= columns; j += lanes) {
      for (int lane = 0; lane < lanes; ++lane) part[lane] += left[j + lane] * right[j + lane];
    }
    V sum = V(0);
    for (; j < columns; ++j) sum += left[j] * right[j];
    for (int lane = 0; lane < lanes; ++lane) sum += part[lane];
    result[i] = sum;
  });
}

/// result[j] = sum over i, ascending, of a(i, j) * b(i, j), with unit column strides.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void column_dots(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b,
                                        V* result) {
  constexpr int width = krait::impl::is_host_execution<typename Member::execution_space> ? 32 : 1;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, (columns + width - 1) / width), [=](int block) {
    const int j = block * width;
    const V* KOKKOS_RESTRICT left = a.data + j;
    const V* KOKKOS_RESTRICT right = b.data + j;
    V sum[width] = {};
    if (columns - j >= width) {
      for (int i = 0; i < rows; ++i) {
        for (int l = 0; l < width; ++l) sum[l] += left[i * a.row + l] * right[i * b.row + l];
      }
      for (int l = 0; l < width; ++l) result[j + l] = sum[l];
    } else {
      for (int i = 0; i < rows; ++i) {
        for (int l = 0; l < columns - j; ++l) sum[l] += left[i * a.row + l] * right[i * b.row + l];
      }
      for (int l = 0; l < columns - j; ++l) result[j + l] = sum[l];
    }
  });
}

/// The same, and sum(i, j) += a(i, j).
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void column_dots_and_sum(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b,
                                                V* result, Matrix<V> sum) {
  generic::column_dots(team, rows, columns, a, b, result);
  for_each(team, rows, columns, [=](int i, int j) { sum(i, j) += a(i, j); });
}

}  // namespace krait::tile::generic
