// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

/// How convolution and scan run over the ranks of a communicator. All give the same numbers.
enum class Strategy {
  automatic,        ///< what a Planner expects to be the fastest
  local,            ///< one rank, no communication
  hidden_parallel,  ///< exchange tokens for heads, run whole sequences of some heads, exchange back
  state_passing     ///< tokens stay; the ranks hand on what their stretches do to the state
};

/// "local", "hidden_parallel" ...
const char* name_of(Strategy strategy);

/// How state passing hands the maps of M segments, S_out = alpha S_in + E, from rank to rank. All give the same states,
/// beyond rounding.
enum class StateExchange {
  automatic,   ///< chosen from the chain of segments
  all_gather,  ///< every rank gets all maps and composes them itself: one step, most bytes
  doubling,    ///< exclusive scan over the segments in log2(M) steps
  chain        ///< from segment to segment in blocks of heads: fewest bytes, M - 1 steps
};

/// "all_gather", "doubling" ...
const char* name_of(StateExchange exchange);

}  // namespace krait
