// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/parallel/strategy.hpp>
#include <string>

#include "genome_common/input_options.hpp"
#include "genome_common/progress.hpp"
#include "model_config.hpp"
#include "schedule.hpp"

namespace genome::train {

/// What the user asked for.
struct Options : InputOptions {
  ModelConfig model;
  std::int64_t steps = 60;      ///< of the schedule
  std::int64_t stop_after = 0;  ///< > 0: leave after this step, to be resumed
  double learning_rate = 4e-3;  ///< at its peak
  std::int64_t warm_up = 0;     ///< steps; 0: a tenth of all
  double weight_decay = 0.1;
  double clip = 1;  ///< largest norm of the gradient
  std::string csv = "loss.csv";
  std::string save;                                       ///< empty: no checkpoint
  std::int64_t save_every = 0;                            ///< 0: at the end only
  std::string resume;                                     ///< empty: from the beginning
  krait::Strategy strategy = krait::Strategy::automatic;  ///< of the mixers
  ProgressKind progress = ProgressKind::automatic;
  bool quiet = false;

  [[nodiscard]] Schedule schedule() const;
  /// The last step of this run.
  [[nodiscard]] std::int64_t last_step() const { return stop_after > 0 ? stop_after : steps; }
};

/// All options but --help, which main() answers.
/// \throws krait::ConfigError that names the option, what was given and what it takes
Options parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace genome::train
