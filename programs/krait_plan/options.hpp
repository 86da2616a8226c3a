// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/parallel/planner.hpp>
#include <string>
#include <vector>

namespace plan {

enum class LayoutKind { contiguous, zigzag, zigzag_docs };
const char* name_of(LayoutKind layout);

/// What the command does.
enum class Task {
  predict,     ///< needs no machine
  calibrate,   ///< measures the machine it runs on
  check,       ///< predicts and measures the question asked, with the ranks it runs on
  check_grid,  ///< the same of many cases, with these ranks and with fewer
  help
};

struct Options {
  std::string preset = "nemotron_h_8b";
  krait::SequenceOperatorConfig config;
  std::int64_t length = 32768;
  std::int64_t batch = 1;
  std::vector<std::int64_t> ranks;
  LayoutKind layout = LayoutKind::zigzag;
  std::int64_t documents = 16;  ///< of a zigzag_docs layout, as equal as can be
  std::int64_t scalar_bytes = 2;
  std::int64_t threads = 1;
  krait::Decay decay = krait::Decay::initialised;
  bool backward = false;
  krait::Machine machine;
  bool json = false;
  Task task = Task::predict;

  /// The preset, or extents that differ from it.
  [[nodiscard]] std::string shape_name() const;
  /// Lengths of the documents of a row of `tokens`.
  [[nodiscard]] std::vector<std::int64_t> document_lengths(std::int64_t tokens) const;
  /// The question to the planner, of a row of `tokens` on `ranks` ranks.
  [[nodiscard]] krait::Workload workload(int ranks, std::int64_t tokens) const;
};

/// \throws krait::ConfigError that names the option, what was given and what it takes
Options parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace plan
