// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/token_rows.hpp>

namespace krait::tile::generic {

/// Copies the rows into the panel.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void load_rows(const InputRows<T, A>& rows) {
  for (int t = 0; t < rows.tokens; ++t) {
    const T* from = rows.from + t * rows.pitch;
    A* to = rows.to + t * rows.row;
    for (std::int64_t c = 0; c < rows.channels; ++c) to[c] = static_cast<A>(from[c]);
  }
}

/// Copies the panel into the rows, through the gate if there is one.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void store_rows(const OutputRows<T, A>& rows) {
  for (int t = 0; t < rows.tokens; ++t) {
    const A* from = rows.from + t * rows.row;
    for (std::int64_t c = 0; c < rows.channels; ++c) {
      A value = from[c];
      if (rows.y != nullptr) rows.y[t][c] = static_cast<T>(value);
      if (rows.z != nullptr) value *= silu(static_cast<A>(rows.z[t][c]));
      rows.out[t][c] = static_cast<T>(value);
    }
  }
}

}  // namespace krait::tile::generic
