// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace krait::tile {

/// A matrix in scratch or global memory, without its extents: element (i, j) lies at data[i * row + j * column].
/// Strides are 64-bit, so a tile may lie anywhere in a large tensor.
template <class V>
struct Matrix {
  V* data = nullptr;
  std::int64_t row = 0;
  std::int64_t column = 1;

  KOKKOS_INLINE_FUNCTION V& operator()(std::int64_t i, std::int64_t j) const { return data[i * row + j * column]; }

  /// The same elements with rows and columns exchanged.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix transposed() const { return {data, column, row}; }
  /// The part that begins at element (i, j).
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix from(std::int64_t i, std::int64_t j) const {
    return {data + i * row + j * column, row, column};
  }
};

}  // namespace krait::tile
