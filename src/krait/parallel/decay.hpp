// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How fast states decay, as far as time depends on it: a summary stops where nothing reaches the end of its segment.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace krait {

/// What is assumed of parameters that a planner does not see.
enum class Decay {
  initialised,  ///< as a layer begins its training, see impl::InitialDecay
  slow,         ///< every token reaches the end of its segment: the worst case
};

namespace impl {

/// Rates of a layer as initialised: steps log-uniform from 0.001 to 0.1, -A uniform from 1 to 16. A uniform number of
/// (0, 1) draws either.
struct InitialDecay {
  static double step(double u) { return 1e-3 * std::pow(100.0, u); }
  static double rate(double u) { return 1 + 15 * u; }

  /// Tokens of a segment that a summary visits, the mean over heads: whole chunks, from the end, until the log-decays
  /// sum to less than what the accumulator's exp() tells from 0.
  static double visited_tokens(std::int64_t tokens, std::int64_t chunk, std::int64_t accumulator_bytes) {
    constexpr int points = 24;
    const double reach = accumulator_bytes > 4 ? 746 : 104;
    double sum = 0;
    for (int i = 0; i < points; ++i) {
      const double dt = step((i + 0.5) / points);
      for (int k = 0; k < points; ++k) {
        const double visited = reach / (dt * rate((k + 0.5) / points)) + 0.5 * static_cast<double>(chunk);
        sum += std::min(visited, static_cast<double>(tokens));
      }
    }
    return sum / (points * points);
  }
};

}  // namespace impl
}  // namespace krait
