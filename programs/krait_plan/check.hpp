// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <krait/comm/communicator.hpp>
#include <krait/parallel/measurement.hpp>
#include <krait/parallel/planner.hpp>
#include <string>
#include <vector>

#include "krait_plan/options.hpp"

namespace plan {

/// A choice that takes this much longer than the fastest strategy is as good: runs of the same work differ by as much.
constexpr double tie = 1.05;

/// One question, predicted and measured; its measurements are in the order of those predictions that can run.
struct Check {
  std::string shape;
  Options options;
  int ranks = 0;
  krait::Choice predicted;
  std::vector<krait::Measurement> measured;

  [[nodiscard]] const krait::Prediction& prediction(const krait::Measurement& of) const;
  [[nodiscard]] const krait::Measurement& fastest() const;
  /// Measured time of what the planner chose over that of the fastest, each relative to the others of its round.
  [[nodiscard]] double regret() const;
  /// Predicted seconds over measured ones, minus 1.
  [[nodiscard]] double error(const krait::Measurement& of) const;
  /// Whether bytes and messages are those that the communicator counted.
  [[nodiscard]] bool exact(const krait::Measurement& of) const;
};

/// Measures the machine for this layer's shape. Collective.
krait::Machine calibrate(const krait::Communicator& world, const Options& options);

/// Measures the machine, then what `options` ask. Collective; the answer on all ranks.
/// \throws krait::ConfigError on one rank, where there is nothing to choose
Check check(const krait::Communicator& world, const Options& options);

/// Cases for 2, 4, 8 ... and all ranks: three shapes, two layouts, with and without a backward, 1,024 to 8,192 tokens
/// of a rank. Calls `done` on rank 0 after each, for all ranks are busy for minutes. Collective.
/// \throws krait::ConfigError on one rank
std::vector<Check> check_grid(const krait::Communicator& world, const std::function<void(const Check&)>& done);

std::string check_header();
void print_check(std::ostream& stream, const Check& check);
/// How many choices were good, and how large the errors are.
void print_summary(std::ostream& stream, const std::vector<Check>& checks);
/// An array of an object per strategy and check.
void print_checks_json(std::ostream& stream, const std::vector<Check>& checks);

}  // namespace plan
