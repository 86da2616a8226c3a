// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "loss_log.hpp"

namespace genome::train {

/// What the run found out.
struct Report {
  std::int64_t length = 0;
  int ranks = 1;
  std::int64_t steps = 0;  ///< of this run
  double seconds = 0;      ///< of them
  double first_loss = 0;   ///< of the very first step, in bits per base
  Step last;
  std::vector<double> context_entropies;
  bool parameters_agree = true;
  double largest_share = 1;         ///< of tokens, or of heads: what a rank has of the whole
  std::int64_t peak_bytes = 0;      ///< of the rank that needs most, without parameters, moments and gradients
  std::int64_t one_rank_bytes = 0;  ///< computed
  std::int64_t parameter_bytes = 0;
};

/// Peak memory of a rank over that of one rank alone, for each unit of its share: 0.30 on four ranks that share
/// evenly.
inline constexpr double memory_factor = 1.2;

/// What a rank may need beyond that, at any length: tables, and the parameters' gradients on their way.
std::int64_t memory_constant(const Report& report);

void print(std::ostream& out, const Report& report);

/// What has been shown, in half a line.
std::string summary(const Report& report);

/// What is wrong, a line each; empty when all is well.
std::vector<std::string> complaints(const Report& report);

}  // namespace genome::train
