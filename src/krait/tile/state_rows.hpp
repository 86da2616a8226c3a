// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What one token does to rows of the state of a head, where they lie in the caller's memory. No Kokkos here, for the
/// sources with vector instructions.

#include <cstdint>

namespace krait::tile {

/// Rows of a state, one per channel, each of N columns at unit stride:
///
///     S_p = decay S_p + (step x_p) B,   y_p = <S_p, C>
template <class T, class A>
struct StateRows {
  int rows;
  std::int64_t columns;  ///< N
  A* state;
  std::int64_t pitch;  ///< from one row of the state to the next
  A decay;             ///< exp(step A) of the head
  A step;
  const T* b;  ///< (N)
  const T* c;  ///< (N)
  const A* x;  ///< (rows)
  A* y;        ///< (rows): result
};

}  // namespace krait::tile
