// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/parallel/strategy.hpp>
#include <string>
#include <vector>

#include "genome_common/input_options.hpp"
#include "genome_common/progress.hpp"

namespace genome {

/// What the user asked for.
struct Options : InputOptions {
  std::int64_t layers = 4;
  std::int64_t d_model = 128;
  std::int64_t prefix = 512;  ///< tokens that are compared with the reference
  /// How several ranks run the mixers; the stack runs once with each.
  std::vector<krait::Strategy> strategies = {krait::Strategy::hidden_parallel, krait::Strategy::state_passing};
  bool check = true;  ///< compare with the one-rank run
  ProgressKind progress = ProgressKind::automatic;
};

/// All options but --help, which main() answers.
/// \throws krait::ConfigError that names the option, what was given and what it takes
Options parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace genome
