// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the sweeps and the backward of a chunk of tokens of one head work on, in scratch memory. No Kokkos here, for
/// the sources with vector instructions.

namespace krait::tile {

/// The pairs of an output m and an input k <= m of a chunk. With the decay f(m, k) = exp(sum_m - sum_k), where a sum is
/// high + low, and what lies in `pairs`, <dy_m, x_k>:
///
///     dscores(m, k) += pairs(m, k) f(m, k) delta_k
///     weights(m, k)  = scores(m, k) f(m, k), 0 above the diagonal
///     columns_k      = sum over m of pairs(m, k) weights(m, k)
///     between_j      = sum over k < j <= m of delta_k pairs(m, k) weights(m, k)
///
/// Above the diagonal nothing is read, and pairs are left with anything in them.
template <class A>
struct ChunkPairs {
  int tokens;
  int row;  ///< from one row to the next, in all that are (tokens, tokens)
  const A* high;
  const A* low;
  const A* delta;
  const A* scores;
  A* pairs;
  A* dscores;
  A* weights;
  A* columns;  ///< (tokens)
  A* between;  ///< (tokens)
};

/// The way of the steps of a chunk and back: raw is with bias.
template <class A>
struct ChunkSteps {
  int tokens;
  A log_rate;     ///< A of the head, <= 0
  A* delta;       ///< raw steps; in the end the step sizes
  A* slope;       ///< derivative of the step size by the raw step, 0 where the clamp acts; nullptr: not wanted
  A* log_decays;  ///< delta A
};

/// The factors of the tokens of a chunk, from sums of their log-decays in two parts:
///
///     enter_j  = exp(sum_j)
///     leave_j  = exp(sum_last - sum_j)
///     inputs_j = leave_j delta_j
template <class A>
struct ChunkFactors {
  int tokens;
  const A* high;
  const A* low;
  const A* delta;
  A* enter;
  A* leave;  ///< nullptr: not wanted
  A* inputs;
};

}  // namespace krait::tile
