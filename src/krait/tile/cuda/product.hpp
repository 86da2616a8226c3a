// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The product of two tiles by a warp: sums in registers, operands in memory. 2-byte operands go through the tensor
/// cores, floats too if TF32 will do, otherwise through the ordinary units; the sums lie alike in all cases.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/mma.hpp>
#include <krait/tile/cuda/warp.hpp>

namespace krait::tile::cuda {

/// A block of sums of 16 M x 8 N elements.
template <class Exec, class V, int M, int N>
struct Sums {
  V at[M][N][Warp<Exec>::slots][4];

  /// body(row, column, first, second) for each pair of neighbours in a row, with its place in the block. Both may be
  /// changed.
  template <class Body>
  KOKKOS_INLINE_FUNCTION void for_pairs(const Warp<Exec>& warp, const Body& body) {
    KRAIT_UNROLLED
    for (int i = 0; i < M; ++i) {
      KRAIT_UNROLLED
      for (int half = 0; half < 2; ++half) {
        KRAIT_UNROLLED
        for (int j = 0; j < N; ++j) {
          KRAIT_UNROLLED
          for (int s = 0; s < Warp<Exec>::slots; ++s) {
            const Place place = d_place(warp.lane(s), 2 * half);
            body(mma_rows * i + place.row, mma_columns * j + place.column, at[i][j][s][2 * half],
                 at[i][j][s][2 * half + 1]);
          }
        }
      }
    }
  }

  KOKKOS_INLINE_FUNCTION void clear(const Warp<Exec>& warp) {
    for_pairs(warp, [](int, int, V& first, V& second) { first = second = V(0); });
  }
};

/// A factor of a product. The inner index runs over whole tile steps, and what is there must be finite in both factors
/// and zero in one. The outer index is kept below `extent`, a multiple of 16: what lies there may be anything.
template <class E, Stored S>
struct Operand {
  const E* data;
  int pitch;   ///< from one row, or column, to the next; a multiple of 16 bytes
  int extent;  ///< rows of a left factor, columns of a right one
};

template <class E>
KOKKOS_INLINE_FUNCTION const std::uint16_t* bits_of(const E* element) {
  return reinterpret_cast<const std::uint16_t*>(element);
}

KOKKOS_INLINE_FUNCTION constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

/// The registers of 16 M x 16 elements of a left factor, and how to move on.
template <class E, Stored S, class Exec, int M>
struct LeftMatrices {
  const std::uint16_t* rows[M][Warp<Exec>::slots];
  int step;

  KOKKOS_INLINE_FUNCTION LeftMatrices(const Warp<Exec>& warp, const Operand<E, S>& a, int first)
      : step(S == Stored::by_rows ? 16 : 16 * a.pitch) {
    KRAIT_UNROLLED
    for (int s = 0; s < Warp<Exec>::slots; ++s) {
      const Place place = matrix_row(S, warp.lane(s));
      KRAIT_UNROLLED
      for (int i = 0; i < M; ++i) {
        const int outer = first + mma_rows * i;
        rows[i][s] = bits_of(a.data) + (S == Stored::by_rows
                                            ? at_most(outer + place.row, a.extent - 1) * a.pitch + place.column
                                            : place.row * a.pitch + at_most(outer + place.column, a.extent - 8));
      }
    }
  }

  template <bool OnChip>
  KOKKOS_INLINE_FUNCTION void next(const Warp<Exec>& warp, std::uint32_t (&to)[M][Warp<Exec>::slots][4]) {
    KRAIT_UNROLLED
    for (int i = 0; i < M; ++i) {
      load_matrices<OnChip, a_is_transposed(S)>(warp, rows[i], to[i]);
      for (auto& row : rows[i]) row += step;
    }
  }
};

/// The same of 16 x 8 N elements of a right factor; N is even.
template <class E, class EB, Stored S, class Exec, int N>
struct RightMatrices {
  const std::uint16_t* rows[N / 2][Warp<Exec>::slots];
  int step;

  KOKKOS_INLINE_FUNCTION RightMatrices(const Warp<Exec>& warp, const Operand<E, S>& b, int first)
      : step(S == Stored::by_rows ? 16 * b.pitch : 16) {
    KRAIT_UNROLLED
    for (int s = 0; s < Warp<Exec>::slots; ++s) {
      const Place place = matrix_row(S, warp.lane(s));
      KRAIT_UNROLLED
      for (int j = 0; j < N / 2; ++j) {
        const int outer = first + 16 * j;
        rows[j][s] = bits_of(b.data) + (S == Stored::by_rows
                                            ? place.row * b.pitch + at_most(outer + place.column, b.extent - 8)
                                            : at_most(outer + place.row, b.extent - 1) * b.pitch + place.column);
      }
    }
  }

  template <bool OnChip>
  KOKKOS_INLINE_FUNCTION void next(const Warp<Exec>& warp, std::uint32_t (&to)[N][Warp<Exec>::slots][2]) {
    KRAIT_UNROLLED
    for (int j = 0; j < N / 2; ++j) {
      std::uint32_t loaded[Warp<Exec>::slots][4];
      load_matrices<OnChip, b_is_transposed(S)>(warp, rows[j], loaded);
      KRAIT_UNROLLED
      for (int s = 0; s < Warp<Exec>::slots; ++s) {
        KRAIT_UNROLLED
        for (int i = 0; i < 4; ++i) to[2 * j + i / 2][s][i % 2] = loaded[s][i];
        rows[j][s] += step;
      }
    }
  }
};

/// A right factor of floats whose columns are contiguous, rounded to E on the way: the state.
template <class E, class Exec, int N>
struct RightMatrices<E, float, Stored::by_columns, Exec, N> {
  const float* columns[N][Warp<Exec>::slots];

  KOKKOS_INLINE_FUNCTION RightMatrices(const Warp<Exec>& warp, const Operand<float, Stored::by_columns>& b, int first) {
    KRAIT_UNROLLED
    for (int s = 0; s < Warp<Exec>::slots; ++s) {
      const Place place = b_place<E>(warp.lane(s), 0, 0);
      KRAIT_UNROLLED
      for (int j = 0; j < N; ++j) {
        const int column = at_most(first + mma_columns * j + place.column, b.extent - 1);
        columns[j][s] = b.data + static_cast<std::ptrdiff_t>(column * b.pitch) + place.row;
      }
    }
  }

  template <bool OnChip>
  KOKKOS_INLINE_FUNCTION void next(const Warp<Exec>&, std::uint32_t (&to)[N][Warp<Exec>::slots][2]) {
    KRAIT_UNROLLED
    for (int j = 0; j < N; ++j) {
      KRAIT_UNROLLED
      for (int s = 0; s < Warp<Exec>::slots; ++s) {
        KRAIT_UNROLLED
        for (int i = 0; i < 2; ++i) to[j][s][i] = pack<E>(columns[j][s][8 * i], columns[j][s][8 * i + 1]);
        columns[j][s] += 16;
      }
    }
  }
};

/// sums += a * b over `inner` (a multiple of 16) of the inner index, on tensor cores: rows of a from `row` on, columns
/// of b from `column` on.
template <bool OnChip, class E, class EB, Stored SA, Stored SB, class Exec, int M, int N>
KOKKOS_INLINE_FUNCTION void multiply_matrices(const Warp<Exec>& warp, int inner, const Operand<E, SA>& a, int row,
                                              const Operand<EB, SB>& b, int column, Sums<Exec, float, M, N>& sums) {
  LeftMatrices<E, SA, Exec, M> left(warp, a, row);
  RightMatrices<E, EB, SB, Exec, N> right(warp, b, column);
  KRAIT_ROLLED
  for (int k = 0; k < inner; k += 16) {
    std::uint32_t l[M][Warp<Exec>::slots][4], r[N][Warp<Exec>::slots][2];
    left.template next<OnChip>(warp, l);
    right.template next<OnChip>(warp, r);
    KRAIT_UNROLLED
    for (int i = 0; i < M; ++i) {
      KRAIT_UNROLLED
      for (int j = 0; j < N; ++j) mma<E>(warp, sums.at[i][j], l[i], r[j]);
    }
  }
}

/// The first elements of the rows of a left factor, or of the columns of a right one, that a lane meets; along the
/// inner index they are `step` apart.
template <Stored S>
KOKKOS_INLINE_FUNCTION const float* left_row(const Operand<float, S>& a, int row) {
  const int kept = at_most(row, a.extent - 1);
  return a.data + (S == Stored::by_rows ? kept * a.pitch : kept);
}
template <Stored S>
KOKKOS_INLINE_FUNCTION const float* right_column(const Operand<float, S>& b, int column) {
  const int kept = at_most(column, b.extent - 1);
  return b.data + (S == Stored::by_rows ? kept : kept * b.pitch);
}

/// Four floats that follow each other, 16-byte aligned.
KOKKOS_INLINE_FUNCTION void load_four(const float* from, float* to) {
#if defined(__CUDA_ARCH__)
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
#else
  KRAIT_UNROLLED
  for (int i = 0; i < 4; ++i) to[i] = from[i];
#endif
}

/// The same in single precision, sums in ascending order of the inner index.
template <Stored SA, Stored SB, class Exec, int M, int N>
KOKKOS_INLINE_FUNCTION void multiply_exactly(const Warp<Exec>& warp, int inner, const Operand<float, SA>& a, int row,
                                             const Operand<float, SB>& b, int column, Sums<Exec, float, M, N>& sums) {
  constexpr int some = 4;
  KRAIT_UNROLLED
  for (int s = 0; s < Warp<Exec>::slots; ++s) {
    const Place mine = d_place(warp.lane(s), 0);
    const float *left[2 * M], *right[2 * N];
    KRAIT_UNROLLED
    for (int i = 0; i < 2 * M; ++i) left[i] = left_row(a, row + 8 * i + mine.row);
    KRAIT_UNROLLED
    for (int j = 0; j < 2 * N; ++j) right[j] = right_column(b, column + j / 2 * mma_columns + mine.column + j % 2);
    KRAIT_ROLLED
    for (int k = 0; k < inner; k += some) {
      float l[2 * M][some], r[2 * N][some];
      KRAIT_UNROLLED
      for (int i = 0; i < 2 * M; ++i) {
        if constexpr (SA == Stored::by_rows) {
          load_four(left[i] + k, l[i]);
        } else {
          KRAIT_UNROLLED
          for (int q = 0; q < some; ++q) l[i][q] = left[i][(k + q) * a.pitch];
        }
      }
      KRAIT_UNROLLED
      for (int j = 0; j < 2 * N; ++j) {
        if constexpr (SB == Stored::by_columns) {
          load_four(right[j] + k, r[j]);
        } else {
          KRAIT_UNROLLED
          for (int q = 0; q < some; ++q) r[j][q] = right[j][(k + q) * b.pitch];
        }
      }
      KRAIT_UNROLLED
      for (int q = 0; q < some; ++q) {
        KRAIT_UNROLLED
        for (int i = 0; i < 2 * M; ++i) {
          KRAIT_UNROLLED
          for (int j = 0; j < 2 * N; ++j) sums.at[i / 2][j / 2][s][2 * (i % 2) + j % 2] += l[i][q] * r[j][q];
        }
      }
    }
  }
}

/// The same with operands rounded to TF32, on tensor cores.
template <Stored SA, Stored SB, class Exec, int M, int N>
KOKKOS_INLINE_FUNCTION void multiply_in_tf32(const Warp<Exec>& warp, int inner, const Operand<float, SA>& a, int row,
                                             const Operand<float, SB>& b, int column, Sums<Exec, float, M, N>& sums) {
  constexpr int slots = Warp<Exec>::slots;
  const int left_step = SA == Stored::by_rows ? 1 : a.pitch;
  const int right_step = SB == Stored::by_rows ? b.pitch : 1;
  KRAIT_ROLLED
  for (int k = 0; k < inner; k += mma_inner<float>) {
    std::uint32_t l[M][slots][4], r[N][slots][2];
    KRAIT_UNROLLED
    for (int s = 0; s < slots; ++s) {
      KRAIT_UNROLLED
      for (int i = 0; i < M; ++i) {
        KRAIT_UNROLLED
        for (int q = 0; q < 4; ++q) {
          const Place place = a_place<float>(warp.lane(s), q, 0);
          l[i][s][q] = round_to_tf32(left_row(a, row + mma_rows * i + place.row)[(k + place.column) * left_step]);
        }
      }
      KRAIT_UNROLLED
      for (int j = 0; j < N; ++j) {
        KRAIT_UNROLLED
        for (int q = 0; q < 2; ++q) {
          const Place place = b_place<float>(warp.lane(s), q, 0);
          r[j][s][q] =
              round_to_tf32(right_column(b, column + mma_columns * j + place.column)[(k + place.row) * right_step]);
        }
      }
    }
    KRAIT_UNROLLED
    for (int i = 0; i < M; ++i) {
      KRAIT_UNROLLED
      for (int j = 0; j < N; ++j) mma<float>(warp, sums.at[i][j], l[i], r[j]);
    }
  }
}

/// What the operands of a team are, where its warps agree.
struct ProductKind {
  bool on_chip;  ///< the tiles lie in shared memory
  bool tf32;     ///< floats may be rounded to TF32
};

/// sums += a * b, in the way that suits the operands.
template <class E, class EB, Stored SA, Stored SB, class Exec, int M, int N>
KOKKOS_INLINE_FUNCTION void multiply(const Warp<Exec>& warp, const ProductKind& kind, int inner,
                                     const Operand<E, SA>& a, int row, const Operand<EB, SB>& b, int column,
                                     Sums<Exec, float, M, N>& sums) {
  if constexpr (sizeof(E) == 2) {
    if (Warp<Exec>::emulated || kind.on_chip) {
      multiply_matrices<true>(warp, inner, a, row, b, column, sums);
    } else {
      multiply_matrices<false>(warp, inner, a, row, b, column, sums);
    }
  } else if (kind.tf32) {
    multiply_in_tf32(warp, inner, a, row, b, column, sums);
  } else {
    multiply_exactly(warp, inner, a, row, b, column, sums);
  }
}

}  // namespace krait::tile::cuda
