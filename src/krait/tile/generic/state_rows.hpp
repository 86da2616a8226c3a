// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/tile/state_rows.hpp>

namespace krait::tile::generic {

/// Advances the rows by a token and takes its outputs, for a single thread of a host.
template <class T, class A>
KOKKOS_INLINE_FUNCTION void advance_state_rows(const StateRows<T, A>& rows) {
  constexpr int lanes = 16;
  for (int p = 0; p < rows.rows; ++p) {
    A* state = rows.state + p * rows.pitch;
    const A in = rows.step * rows.x[p];
    // Partial sums side by side, so that the order is fixed and compilers make vectors.
    A partial[lanes] = {};
    const auto advance = [&](std::int64_t n, int lane) {
      state[n] = rows.decay * state[n] + in * static_cast<A>(rows.b[n]);
      partial[lane] += state[n] * static_cast<A>(rows.c[n]);
    };
    std::int64_t n = 0;
    for (; n + lanes <= rows.columns; n += lanes) {
      for (int lane = 0; lane < lanes; ++lane) advance(n + lane, lane);
    }
    for (int lane = 0; n + lane < rows.columns; ++lane) advance(n + lane, lane);
    A sum = 0;
    for (const A value : partial) sum += value;
    rows.y[p] = sum;
  }
}

}  // namespace krait::tile::generic
