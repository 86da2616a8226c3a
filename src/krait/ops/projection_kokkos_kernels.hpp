// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <limits>

namespace krait::impl {

/// A matrix as BLAS takes it: stored row-major with unit column stride and `pitch` elements from row to row, either
/// itself or, if `transposed`, its transpose.
template <class V>
struct BlasMatrix {
  V* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t pitch = 0;
  bool transposed = false;

  /// No such matrix: the strides or extents do not allow it.
  [[nodiscard]] bool absent() const { return data == nullptr; }
  [[nodiscard]] BlasMatrix transpose() const { return {data, columns, rows, pitch, !transposed}; }
};

/// The matrix with the given strides, or none when BLAS cannot take it: one stride must be 1, and extents and pitch
/// within the range of a BLAS integer.
template <class V>
BlasMatrix<V> blas_matrix(V* data, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                          std::int64_t column_stride) {
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  if (rows > most || columns > most || row_stride > most || column_stride > most) return {};
  if (column_stride == 1 && row_stride >= columns) return {data, rows, columns, row_stride, false};
  if (row_stride == 1 && column_stride >= rows) return {data, rows, columns, column_stride, true};
  return {};
}

/// out = left * right, or out += left * right, by KokkosBlas::gemm on the given instance. T is float or double; `out`
/// is not transposed. Compiled where Kokkos Kernels is enabled.
template <class T, class Exec>
void kokkos_kernels_gemm(const Exec& exec, const BlasMatrix<const T>& left, const BlasMatrix<const T>& right,
                         const BlasMatrix<T>& out, bool add);

}  // namespace krait::impl
