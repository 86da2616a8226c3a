// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The decays inside a chunk of tokens.

#include <Kokkos_Core.hpp>

#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/chunk_pairs.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/scan_chunk.hpp>

namespace krait::tile::generic {

template <class V>
KOKKOS_INLINE_FUNCTION V step_size(const StepRule<V>& rule, V raw) {
  const V delta = rule.dt_softplus ? softplus(raw) : raw;
  return delta < rule.dt_min ? rule.dt_min : (delta > rule.dt_max ? rule.dt_max : delta);
}

/// The derivative of step_size(): 0 where the clamp acts, 1 at its ends.
template <class V>
KOKKOS_INLINE_FUNCTION V step_slope(const StepRule<V>& rule, V raw) {
  const V delta = rule.dt_softplus ? softplus(raw) : raw;
  const V slope = rule.dt_softplus && raw <= V(20) ? sigmoid(raw) : V(1);
  return delta < rule.dt_min || delta > rule.dt_max ? V(0) : slope;
}

/// Inclusive sums of the log-decays a of a chunk, as unevaluated pairs high[i] + low[i] (compensated summation,
/// Neumaier 1974). After one fast token the sum is large and its last bit is coarse; a difference of two sums that both
/// contain it must still be as accurate as the slow tokens between them.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void cumulative_sum(const Member& team, int count, const V* a, V* high, V* low) {
  Kokkos::single(Kokkos::PerTeam(team), [&]() {
    V sum = V(0);
    V lost = V(0);
    for (int i = 0; i < count; ++i) {
      const V next = sum + a[i];
      lost += Kokkos::abs(sum) >= Kokkos::abs(a[i]) ? (sum - next) + a[i] : (a[i] - next) + sum;
      sum = next;
      high[i] = sum;
      low[i] = lost;
    }
  });
}

/// The weights of token k in output m, from the products scores(m, k) = <C_m, B_k> of a chunk:
/// w(m, k) = scores(m, k) * exp(sum_m - sum_k) * scale[k] for k <= m and 0 above the diagonal, where nothing is read
/// and no exponential is taken. The weights may take the place of the products.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void decay_weights(const Member& team, int count, const V* high, const V* low, const V* scale,
                                          Matrix<const V> scores, Matrix<V> w) {
  for_each(team, count, count, [=](int m, int k) {
    w(m, k) = k <= m ? scores(m, k) * decay((high[m] - high[k]) + (low[m] - low[k])) * scale[k] : V(0);
  });
}

/// a(i, j) becomes the sum of a(i, j), a(i + 1, j), ..., a(rows - 1, j).
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void sum_below(const Member& team, int rows, int columns, Matrix<V> a) {
  if constexpr (impl::is_host_execution<typename Member::execution_space>) {
    Kokkos::single(Kokkos::PerTeam(team), [=]() {
      for (int i = rows - 2; i >= 0; --i) {
        for (int j = 0; j < columns; ++j) a.data[i * a.row + j] += a.data[(i + 1) * a.row + j];
      }
    });
  } else {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, columns), [=](int j) {
      for (int i = rows - 2; i >= 0; --i) a(i, j) += a(i + 1, j);
    });
  }
}

/// See ChunkSteps.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_steps(const Member& team, const ChunkSteps<V>& steps, const StepRule<V>& rule) {
  for_each(team, 1, steps.tokens, [=](int, int j) {
    const V raw = steps.delta[j];
    const V delta = step_size(rule, raw);
    steps.delta[j] = delta;
    steps.log_decays[j] = delta * steps.log_rate;
    if (steps.slope != nullptr) steps.slope[j] = step_slope(rule, raw);
  });
}

/// See ChunkFactors.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_factors(const Member& team, const ChunkFactors<V>& k) {
  for_each(team, 1, k.tokens, [=](int, int j) {
    const int last = k.tokens - 1;
    const V leave = decay((k.high[last] - k.high[j]) + (k.low[last] - k.low[j]));
    k.enter[j] = decay(k.high[j] + k.low[j]);
    if (k.leave != nullptr) k.leave[j] = leave;
    k.inputs[j] = leave * k.delta[j];
  });
}

/// See ChunkPairs. With barriers in it, the last thing it does is one.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_pairs(const Member& team, const ChunkPairs<V>& k) {
  const Matrix<V> pairs{k.pairs, k.row, 1}, dscores{k.dscores, k.row, 1}, weights{k.weights, k.row, 1};
  const Matrix<const V> scores{k.scores, k.row, 1};
  for_each(team, k.tokens, k.tokens, [=](int m, int j) {
    const V factor = j <= m ? decay((k.high[m] - k.high[j]) + (k.low[m] - k.low[j])) : V(0);
    const V weight = j <= m ? scores(m, j) * factor : V(0);
    dscores(m, j) += j <= m ? pairs(m, j) * factor * k.delta[j] : V(0);
    weights(m, j) = weight;
    pairs(m, j) = j <= m ? pairs(m, j) * weight : V(0);
  });
  team.team_barrier();
  sum_below(team, k.tokens, k.tokens, pairs);
  team.team_barrier();
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, k.tokens), [=](int j) {
    V sum = V(0);
    for (int i = 0; i < j; ++i) sum += k.delta[i] * pairs(j, i);
    k.between[j] = sum;
    k.columns[j] = pairs(0, j);
  });
  team.team_barrier();
}

}  // namespace krait::tile::generic
