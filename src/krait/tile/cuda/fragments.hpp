// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Which lane of a warp holds what: the fragments of the tensor-core products mma.sync.m16n8k16 (2-byte operands) and
/// mma.sync.m16n8k8 (TF32), the rows that ldmatrix asks each lane for, and the pitches with which no two lanes of a
/// warp meet in a bank of shared memory. After the PTX ISA, "Matrix multiply-accumulate operation using mma".
///
/// A product is D (16 x 8) += A (16 x k) * B (k x 8). A lane holds four registers of A, two of B and four of D.

#include <Kokkos_Core.hpp>

namespace krait::tile::cuda {

inline constexpr int warp_size = 32;

/// Extents of a product.
inline constexpr int mma_rows = 16;
inline constexpr int mma_columns = 8;

/// The inner extent of a product, and the elements in a register, of operands of type E: bfloat16 or float16, or float
/// for TF32.
template <class E>
inline constexpr int mma_inner = sizeof(E) == 2 ? 16 : 8;
template <class E>
inline constexpr int register_elements = sizeof(E) == 2 ? 2 : 1;

/// An element of a matrix.
struct Place {
  int row;
  int column;
};

/// Where element `part` of register `index` of a lane comes from, in A (m, k).
template <class E>
KOKKOS_INLINE_FUNCTION constexpr Place a_place(int lane, int index, int part) {
  const int each = register_elements<E>;
  return {lane / 4 + index % 2 * 8, lane % 4 * each + part + index / 2 * (4 * each)};
}

/// The same in B (k, n).
template <class E>
KOKKOS_INLINE_FUNCTION constexpr Place b_place(int lane, int index, int part) {
  const int each = register_elements<E>;
  return {lane % 4 * each + part + index * (4 * each), lane / 4};
}

/// The same in D (m, n), for all types of operands. Registers 0 and 1 lie side by side in a row, 2 and 3 eight below.
KOKKOS_INLINE_FUNCTION constexpr Place d_place(int lane, int index) {
  return {lane / 4 + index / 2 * 8, lane % 4 * 2 + index % 2};
}

/// How an operand lies in memory: its rows or its columns are contiguous.
enum class Stored { by_rows, by_columns };

/// ldmatrix.x4 reads four 8 x 8 matrices of 2-byte elements: each lane names eight contiguous elements, lanes 8 i to
/// 8 i + 7 those of matrix i, and gets two elements of each matrix. Which eight, counted from the beginning of a
/// 16 x 16 block as it lies in memory, so that the registers are the four of A, or those of two neighbouring B.
KOKKOS_INLINE_FUNCTION constexpr Place matrix_row(Stored stored, int lane) {
  const int first = lane / 8 % 2 * 8;
  const int second = lane / 16 * 8;
  return stored == Stored::by_rows ? Place{lane % 8 + first, second} : Place{lane % 8 + second, first};
}
/// Whether that takes ldmatrix.trans.
KOKKOS_INLINE_FUNCTION constexpr bool a_is_transposed(Stored stored) { return stored == Stored::by_columns; }
KOKKOS_INLINE_FUNCTION constexpr bool b_is_transposed(Stored stored) { return stored == Stored::by_rows; }

/// Extents of tiles are multiples of this: of a product's, and of a vector access.
inline constexpr int tile_step = 16;

KOKKOS_INLINE_FUNCTION constexpr int whole_tiles(int elements) {
  return (elements + tile_step - 1) / tile_step * tile_step;
}

/// From one row to the next in tiles of 2-byte operands, and in those of floats that are read and written as the
/// accumulators lie (the state, outputs). Rows are then 16 bytes, or 8 words, further round the 32 banks each.
KOKKOS_INLINE_FUNCTION constexpr int tile_pitch(int columns) { return whole_tiles(columns) + 8; }

/// The same for operands of type E. Lanes read rows of floats four words apart.
template <class E>
KOKKOS_INLINE_FUNCTION constexpr int operand_pitch(int columns) {
  return whole_tiles(columns) + (sizeof(E) == 2 ? 8 : 4);
}

}  // namespace krait::tile::cuda
