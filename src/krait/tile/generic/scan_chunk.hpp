// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// A chunk of tokens of one head, by the other pieces. The only piece with barriers in it.

#include <Kokkos_Core.hpp>

#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/gemm.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/scan_chunk.hpp>

namespace krait::tile::generic {

/// See ScanChunk. The weights take the place of what is there, x that of what is scaled, so both may share memory.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scan_chunk(const Member& team, const ScanChunk<V>& k) {
  const int count = k.tokens;
  const Matrix<V> x{k.x, k.row, 1}, y{k.y, k.y_row, 1}, state{k.state, k.state_row, 1},
      weights{k.weights, k.token_row, 1};
  const Matrix<const V> b{k.b, k.b_row, 1}, c{k.c, k.c_row, 1}, scores{k.scores, k.token_row, 1};
  // Rows of the products inside the chunk that are formed at a time: above the diagonal nothing is needed.
  constexpr int panel = 32;

  for_each(team, 1, count, [=](int, int j) {
    k.steps[j] = step_size(k.rule, k.steps[j]);
    k.leave[j] = k.steps[j] * k.log_rate;
  });
  generic::gemm(team, count, k.channels, k.d_state, c, Matrix<const V>{k.state, k.state_row, 1}, V(0), y);
  team.team_barrier();
  cumulative_sum(team, count, k.leave, k.high, k.low);
  team.team_barrier();
  decay_weights(team, count, k.high, k.low, k.steps, scores, weights);
  for_each(team, 1, count, [=](int, int j) {
    k.enter[j] = decay(k.high[j] + k.low[j]);
    k.leave[j] = decay((k.high[count - 1] - k.high[j]) + (k.low[count - 1] - k.low[j])) * k.steps[j];
  });
  team.team_barrier();
  for_each(team, count, k.channels, [=](int m, int p) {
    const V skip = k.skip != nullptr ? k.skip[p] * x(m, p) : V(0);
    y(m, p) = k.enter[m] * y(m, p) + skip;
  });
  team.team_barrier();
  for (int from = 0; from < count; from += panel) {
    const int to = from + panel < count ? from + panel : count;
    generic::gemm(team, to - from, k.channels, to, weights.from(from, 0), x, V(1), y.from(from, 0));
  }
  team.team_barrier();
  generic::scale_rows(team, count, k.channels, k.leave, x);
  team.team_barrier();
  generic::gemm(team, k.d_state, k.channels, count, b, x, k.enter[count - 1], state);
  team.team_barrier();
}

}  // namespace krait::tile::generic
