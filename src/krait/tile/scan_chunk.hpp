// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a chunk of tokens of one head works on, in scratch memory. No Kokkos here, for the sources with vector
/// instructions.

#include <cstdint>

#include <krait/tile/coming_rows.hpp>

namespace krait::tile {

/// Elements to which the rows of channels of a ScanChunk, and its rows of tokens, are rounded up: whole vectors of any
/// instruction set. What lies behind the last channel or token may be anything.
inline constexpr int scan_lanes = 16;

/// How a raw step, bias included, becomes a step size: softplus if wanted, then the clamp.
template <class A>
struct StepRule {
  A dt_min;
  A dt_max;
  bool dt_softplus;
};

/// Q tokens, a state of N rows of P channels. With the steps delta and sums_m = A (delta_0 + ... + delta_m):
///
///     y_m = exp(sums_m) C_m S + sum over k <= m of <C_m, B_k> exp(sums_m - sums_k) delta_k x_k + skip x_m
///     S   = exp(sums_last) S + sum over k of exp(sums_last - sums_k) delta_k B_k (outer) x_k
///
/// E is the type of operands: the accumulator, but for the warps of a GPU, which take c, b, x and weights as the caller
/// stores them. b (Q, b_row) and the state (P, state_row) are not transposed then.
template <class A, class E = A>
struct ScanChunk {
  int tokens;     ///< Q
  int d_state;    ///< N
  int channels;   ///< P, of this tile of the head
  int row;        ///< from one row of channels to the next, in x, y and scaled
  int token_row;  ///< from one row of tokens to the next, in scores and weights
  int b_row;      ///< the same in b
  int c_row;      ///< from one row to the next; N but for warps, as y_row is `row`
  int y_row;
  int state_row;
  A log_rate;  ///< A of the head, <= 0
  StepRule<A> rule;
  const E* c;       ///< (Q, c_row)
  const E* b;       ///< (N, b_row): transposed
  const A* scores;  ///< (Q, token_row): <C_m, B_k>, for k <= m
  E* x;             ///< (Q, row): may be changed
  const A* skip;    ///< (row); nullptr without one
  A* state;         ///< (N, row)
  A* y;             ///< (Q, row): result
  A* steps;         ///< (token_row): raw steps with bias; in the end the step sizes
  E* weights;       ///< (Q, token_row): for the piece's own use, as what follows; may be the scores
  A* scaled;        ///< (Q, row): may be x
  A* high;          ///< (token_row)
  A* low;           ///< (token_row)
  A* enter;         ///< (token_row)
  A* leave;         ///< (token_row)
};

/// Chunks of some heads of one group, side by side: in the rows of channels, the channels of a head follow on those of
/// the head before, and the vectors over the tokens follow each other too, `token_row` apart. The heads share c, b and
/// scores, and the memory of the weights, which may not be the scores.
template <class A>
struct ScanHeads {
  int heads;
  const A* log_rates;  ///< (heads), `rate_stride` apart
  std::int64_t rate_stride;
  A* through;  ///< (row): for the piece's own use
  Coming coming;
  ScanChunk<A> first;  ///< but for log_rate that of the first head

  [[nodiscard]] ScanChunk<A> head(int h) const {
    ScanChunk<A> k = first;
    k.log_rate = log_rates[h * rate_stride];
    for (A** row : {&k.x, &k.state, &k.y, &k.scaled}) *row += h * k.channels;
    if (k.skip != nullptr) k.skip += h * k.channels;
    for (A** tokens : {&k.steps, &k.high, &k.low, &k.enter, &k.leave}) *tokens += h * k.token_row;
    return k;
  }
};

/// The decays of a chunk, in vectors over its tokens.
template <class A>
struct ChunkDecays {
  int tokens;
  A log_rate;  ///< A of the head, <= 0
  StepRule<A> rule;
  A* steps;  ///< raw steps with bias; in the end the step sizes
  A* high;   ///< sums of the log-decays from the beginning of the chunk, in two parts
  A* low;
  A* enter;  ///< exp(sums)
  A* leave;  ///< exp(last sum - sums) times the step sizes
};

/// The part of a chunk's work that is done on the state.
template <class E>
struct StateUpdate {
  int tokens;
  int d_state;
  int channels;
  float decay;  ///< of the state
  const E* x;   ///< (Q, row): with all factors
  int row;
  const E* b;  ///< (Q, b_row)
  int b_row;
  float* state;  ///< (P, state_row)
  int state_row;
};

}  // namespace krait::tile
