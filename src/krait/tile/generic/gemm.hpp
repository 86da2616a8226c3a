// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The product of two tiles. The sum over the inner index runs in ascending order for every element, so the result
/// does not depend on the size of the team or of the register blocks.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile::generic {

/// Register block of one thread. On a GPU a thread has one column, as its neighbours have the next ones. On a host the
/// columns become vectors: 32, because compilers unroll a shorter loop before they look for vectors in it, and lose
/// three quarters of the speed.
template <class Exec>
struct GemmBlock {
  static constexpr int rows = 4;
  static constexpr int columns = krait::impl::is_host_execution<Exec> ? 32 : 1;
};

/// One full block with unit column strides: trip counts are constants, so that the sums stay in registers.
template <int Rows, int Columns, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm_block(int inner, Matrix<VA> a, Matrix<VB> b, VC beta, Matrix<VC> c) {
  VC sum[Rows][Columns] = {};
  const VA* KOKKOS_RESTRICT left = a.data;
  const VB* KOKKOS_RESTRICT right = b.data;
  for (int l = 0; l < inner; ++l) {
    for (int i = 0; i < Rows; ++i) {
      const VC factor = static_cast<VC>(left[i * a.row]);
      for (int j = 0; j < Columns; ++j) sum[i][j] += factor * static_cast<VC>(right[j]);
    }
    left += a.column;
    right += b.row;
  }
  for (int i = 0; i < Rows; ++i) {
    VC* out = c.data + i * c.row;
    for (int j = 0; j < Columns; ++j) out[j] = beta == VC(0) ? sum[i][j] : beta * out[j] + sum[i][j];
  }
}

/// A block at the edge, or with any strides: row by row.
template <int Columns, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm_edge(int rows, int columns, int inner, Matrix<VA> a, Matrix<VB> b, VC beta,
                                      Matrix<VC> c) {
  for (int i = 0; i < rows; ++i) {
    VC sum[Columns] = {};
    for (int l = 0; l < inner; ++l) {
      const VC factor = static_cast<VC>(a(i, l));
      const VB* KOKKOS_RESTRICT right = b.data + l * b.row;
      if (b.column == 1) {
        for (int j = 0; j < columns; ++j) sum[j] += factor * static_cast<VC>(right[j]);
      } else {
        for (int j = 0; j < columns; ++j) sum[j] += factor * static_cast<VC>(right[j * b.column]);
      }
    }
    for (int j = 0; j < columns; ++j) c(i, j) = beta == VC(0) ? sum[j] : beta * c(i, j) + sum[j];
  }
}

/// c = a * b + beta * c, with a of rows x inner and b of inner x columns elements; beta == 0 does not read c. Sums are
/// kept in the element type of c. Transposes are strides: pass `m.transposed()`. Fast where b and c have unit column
/// stride.
template <class Member, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm(const Member& team, int rows, int columns, int inner, Matrix<VA> a, Matrix<VB> b,
                                 VC beta, Matrix<VC> c) {
  using Block = GemmBlock<typename Member::execution_space>;
  const bool unit = Block::columns == 1 || (b.column == 1 && c.column == 1);
  const int down = (rows + Block::rows - 1) / Block::rows;
  const int across = (columns + Block::columns - 1) / Block::columns;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, down * across), [&](int block) {
    const int i = block / across * Block::rows;
    const int j = block % across * Block::columns;
    const int height = rows - i < Block::rows ? rows - i : Block::rows;
    const int width = columns - j < Block::columns ? columns - j : Block::columns;
    if (unit && height == Block::rows && width == Block::columns) {
      gemm_block<Block::rows, Block::columns>(inner, a.from(i, 0), b.from(0, j), beta, c.from(i, j));
    } else {
      gemm_edge<Block::columns>(height, width, inner, a.from(i, 0), b.from(0, j), beta, c.from(i, j));
    }
  });
}

}  // namespace krait::tile::generic
