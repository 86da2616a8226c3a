// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/parallel/strategy.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "difference.hpp"

namespace genome {

/// What one strategy made of the sequence.
struct Outcome {
  krait::Strategy strategy = krait::Strategy::local;
  double largest_share = 1;     ///< of tokens, or of heads: what a rank has of the whole
  double seconds = 0;           ///< of the slowest rank
  std::int64_t bytes_sent = 0;  ///< by the rank that sends most
  std::int64_t exchanges = 0;
  std::int64_t peak_bytes = 0;                  ///< of the rank that needs most
  std::optional<Difference> against_one_rank;   ///< over all tokens
  std::optional<Difference> against_reference;  ///< over the prefix
};

/// What the program found out.
struct Report {
  std::int64_t length = 0;
  std::int64_t layers = 0;
  int ranks = 1;
  std::int64_t least_tokens = 0;  ///< of a rank
  std::int64_t most_tokens = 0;
  std::int64_t one_rank_bytes = 0;
  bool one_rank_measured = false;  ///< else computed
  std::int64_t prefix = 0;
  std::vector<Outcome> outcomes;  ///< one for each strategy
};

/// Relative RMS that runs on several ranks and on one may differ by: they add the same numbers in another order.
inline constexpr double one_rank_tolerance = 1e-5;

/// Relative RMS that single precision may be off the double-precision reference by: what the tests allow one operator
/// on its own. A stack of four layers stays at 3e-7, five times the unit roundoff.
inline constexpr double reference_tolerance = 1e-5;

/// Peak memory of a rank over that of one rank alone, for each unit of its share: 0.30 on four ranks that share
/// evenly.
inline constexpr double memory_factor = 1.2;

/// What a rank may need beyond that, at any length: index tables, states and the like.
inline constexpr std::int64_t memory_constant = 1 << 20;

/// A table, the strategies side by side.
void print(std::ostream& out, const Report& report);

/// What has been shown, in half a line.
std::string summary(const Report& report);

/// What is wrong, a line each that names the strategy; empty when all is well.
std::vector<std::string> complaints(const Report& report);

}  // namespace genome
