// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The product of two tiles by one thread of a host, in vectors of the widest instruction set that the machine has,
/// chosen at run time. No Kokkos here, for the source with vector instructions.

#include <cstdint>

#include <krait/tile/coming_rows.hpp>

namespace krait::tile::host {

/// c = a * b + beta * c, with a of rows x inner and b of inner x columns elements; element (i, j) of a lies at
/// a[i * a_row + j * a_column]. The columns of b and c, which are the lanes of vectors, have unit stride.
template <class V>
struct GemmCall {
  int rows, columns, inner;
  const V* a;
  std::int64_t a_row, a_column;
  const V* b;
  std::int64_t b_row;
  V beta;  ///< 0: c is not read
  V* c;
  std::int64_t c_row;
  Coming coming = {};  ///< what the caller's memory is asked for meanwhile
};

/// Sums run over the inner index in ascending order, each in a lane of its own: a part of the product has the same bits
/// as the whole. For float and double.
template <class V>
void gemm(const GemmCall<V>& call);

}  // namespace krait::tile::host
