// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The product of two tiles of floats, or doubles, with any strides and extents, by the warps of a team: blocks of
/// 16 x 16 sums in registers.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/mma.hpp>
#include <krait/tile/cuda/product.hpp>
#include <krait/tile/cuda/warp.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile::cuda {

/// A block of 16 x 16 sums: what gemm() forms at a time.
template <class Exec, class V>
using SquareSums = Sums<Exec, V, 1, 2>;

/// sums = a * b at (row, column) in ascending order of the inner index. Rows and columns behind the last are those of
/// the last.
template <class Exec, class VA, class VB, class V>
KOKKOS_INLINE_FUNCTION void square_exactly(const Warp<Exec>& warp, int rows, int columns, int inner, Matrix<VA> a,
                                           Matrix<VB> b, int row, int column, SquareSums<Exec, V>& sums) {
  for (int s = 0; s < Warp<Exec>::slots; ++s) {
    const Place mine = d_place(warp.lane(s), 0);
    const VA* left[2];
    const VB* right[4];
    KRAIT_UNROLLED
    for (int i = 0; i < 2; ++i) left[i] = &a(at_most(row + 8 * i + mine.row, rows - 1), 0);
    KRAIT_UNROLLED
    for (int j = 0; j < 4; ++j) right[j] = &b(0, at_most(column + j / 2 * 8 + mine.column + j % 2, columns - 1));
    for (int k = 0; k < inner; ++k) {
      V l[2], r[4];
      KRAIT_UNROLLED
      for (int i = 0; i < 2; ++i) l[i] = static_cast<V>(left[i][k * a.column]);
      KRAIT_UNROLLED
      for (int j = 0; j < 4; ++j) r[j] = static_cast<V>(right[j][k * b.row]);
      KRAIT_UNROLLED
      for (int i = 0; i < 2; ++i) {
        KRAIT_UNROLLED
        for (int j = 0; j < 4; ++j) sums.at[0][j / 2][s][2 * i + j % 2] += l[i] * r[j];
      }
    }
  }
}

/// The same with both factors rounded to TF32, on tensor cores.
template <class Exec, class VA, class VB>
KOKKOS_INLINE_FUNCTION void square_in_tf32(const Warp<Exec>& warp, int rows, int columns, int inner, Matrix<VA> a,
                                           Matrix<VB> b, int row, int column, SquareSums<Exec, float>& sums) {
  constexpr int slots = Warp<Exec>::slots;
  constexpr int step = mma_inner<float>;
  for (int k = 0; k < inner; k += step) {
    std::uint32_t l[slots][4], r[2][slots][2];
    for (int s = 0; s < slots; ++s) {
      KRAIT_UNROLLED
      for (int q = 0; q < 4; ++q) {
        const Place place = a_place<float>(warp.lane(s), q, 0);
        const int at = k + place.column;
        const float value = at < inner ? static_cast<float>(a(at_most(row + place.row, rows - 1), at)) : 0.0F;
        l[s][q] = round_to_tf32(value);
      }
      KRAIT_UNROLLED
      for (int j = 0; j < 2; ++j) {
        KRAIT_UNROLLED
        for (int q = 0; q < 2; ++q) {
          const Place place = b_place<float>(warp.lane(s), q, 0);
          const int at = k + place.row;
          const int to = at_most(column + mma_columns * j + place.column, columns - 1);
          r[j][s][q] = round_to_tf32(at < inner ? static_cast<float>(b(at, to)) : 0.0F);
        }
      }
    }
    KRAIT_UNROLLED
    for (int j = 0; j < 2; ++j) mma<float>(warp, sums.at[0][j], l, r[j]);
  }
}

/// c = a * b + beta * c by a team of whole warps; see tile::gemm().
template <class Member, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm(const Member& team, bool tf32, int rows, int columns, int inner, Matrix<VA> a,
                                 Matrix<VB> b, VC beta, Matrix<VC> c) {
  using Exec = typename Member::execution_space;
  const Warp<Exec> warp(team);
  const int across = (columns + tile_step - 1) / tile_step;
  const int blocks = (rows + tile_step - 1) / tile_step * across;
  KRAIT_ROLLED
  for (int block = warp.index; block < blocks; block += warp.count) {
    const int row = block / across * tile_step;
    const int column = block % across * tile_step;
    SquareSums<Exec, VC> sums;
    sums.clear(warp);
    if constexpr (std::is_same_v<VC, float>) {
      if (tf32) {
        square_in_tf32(warp, rows, columns, inner, a, b, row, column, sums);
      } else {
        square_exactly(warp, rows, columns, inner, a, b, row, column, sums);
      }
    } else {
      square_exactly(warp, rows, columns, inner, a, b, row, column, sums);
    }
    const auto store = [&](int i, int j, VC sum) {
      if (i < rows && j < columns) c(i, j) = beta == VC(0) ? sum : beta * c(i, j) + sum;
    };
    sums.for_pairs(warp, [&](int i, int j, VC first, VC second) {
      store(row + i, column + j, first);
      store(row + i, column + j + 1, second);
    });
  }
}

}  // namespace krait::tile::cuda
