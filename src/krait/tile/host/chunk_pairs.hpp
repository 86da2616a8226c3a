// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What one thread of a host does to the tiles of a chunk, in vectors of the widest instruction set that the machine
/// has, chosen at run time. A: float or double. See generic/chunk_math.hpp and generic/dots.hpp.

#include <cstdint>

#include <krait/tile/chunk_pairs.hpp>
#include <krait/tile/scan_chunk.hpp>

namespace krait::tile::host {

template <class A>
void chunk_steps(const ChunkSteps<A>& steps, const StepRule<A>& rule);

template <class A>
void chunk_factors(const ChunkFactors<A>& factors);

template <class A>
void chunk_pairs(const ChunkPairs<A>& pairs);

/// Two panels of unit column stride.
template <class A>
struct TwoPanels {
  int rows;
  int columns;
  const A* a;
  std::int64_t a_row;
  const A* b;
  std::int64_t b_row;
};

/// result[i] = <row i of a, row i of b>
template <class A>
void row_dots(const TwoPanels<A>& panels, A* result);

/// result[j] = <column j of a, column j of b>; with `sum`, a is added to it, in rows of `sum_row` elements.
template <class A>
void column_dots(const TwoPanels<A>& panels, A* result, A* sum, std::int64_t sum_row);

/// a(i, j) = factors[i] a(i, j) + skip[j] b(i, j), without the second term where skip is nullptr.
template <class A>
void scale_rows(int rows, int columns, const A* factors, A* a, std::int64_t a_row, const A* skip, const A* b,
                std::int64_t b_row);

/// a(i, j) *= factors[j]
template <class A>
void scale_columns(int rows, int columns, const A* factors, A* a, std::int64_t a_row);

}  // namespace krait::tile::host
