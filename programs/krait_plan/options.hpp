// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/parallel/planner.hpp>
#include <string>
#include <vector>

namespace plan {

enum class LayoutKind { contiguous, zigzag, zigzag_docs };

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
  double summary_visits = krait::Workload().summary_visits;
  bool backward = false;
  krait::Machine machine;
  bool json = false;
  bool help = false;

  /// The question to the planner, of a row of `tokens` on `ranks` ranks.
  [[nodiscard]] krait::Workload workload(int ranks, std::int64_t tokens) const;
};

/// \throws krait::ConfigError that names the option, what was given and what it takes
Options parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace plan
