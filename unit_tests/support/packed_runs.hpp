// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/core/runs.hpp>

namespace krait::test {

/// Two rows of 50 tokens, with runs of length 0, 1, 2 and more, padding before, between and behind them, and states out
/// of order: 0 to 9, so that others of `states` belong to no run.
inline SequenceRuns mixed_runs(std::int64_t states = 10) {
  return SequenceRuns(2, 50,
                      {{0, 0, 0, 9},
                       {0, 2, 3, 8},
                       {0, 3, 5, 7},
                       {0, 5, 22, 6},
                       {0, 25, 25, 5},
                       {0, 25, 46, 4},
                       {1, 0, 13, 3},
                       {1, 13, 13, 2},
                       {1, 13, 50, 1},
                       {1, 50, 50, 0}},
                      states);
}

/// Two rows of 50 tokens: among others runs without a state, empty, short and longer than a segment.
inline SequenceRuns runs_without_states() {
  constexpr std::int64_t none = Run::no_state;
  return SequenceRuns(2, 50,
                      {{0, 0, 0, none},
                       {0, 2, 3, none},
                       {0, 3, 5, 2},
                       {0, 5, 22, none},
                       {0, 25, 25, 1},
                       {0, 25, 46, 0},
                       {1, 0, 50, none}},
                      3);
}

}  // namespace krait::test
