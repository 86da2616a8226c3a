// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

#include "common/option_parser.hpp"

namespace genome {

using command_line::OptionParser;

enum class ProgressKind { automatic, bar, lines };

/// --progress
void add_progress_option(OptionParser& parser, ProgressKind& kind);

/// Whether to draw a bar. Automatic: when standard output is a terminal as far as one can tell. MPI launchers give each
/// rank a terminal of their own whatever theirs is, so under one of them the answer is no.
bool wants_bar(ProgressKind kind);

/// Tells how far a job of known steps has come: a bar that is drawn over itself, or a line for every `line_every`-th
/// step and the last.
class Progress {
 public:
  Progress(std::ostream& out, bool bar, std::int64_t steps, std::int64_t line_every = 1)
      : out_(out), bar_(bar), steps_(steps), line_every_(line_every) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;

  /// Says what is being worked on now; the bar shows it, lines wait for done().
  void begin(const std::string& what);
  /// Marks the current step as finished.
  void done();
  /// The same, and says what came of it instead of what was worked on.
  void done(const std::string& outcome);
  /// Takes the bar away.
  void clear();

 private:
  void draw();

  std::ostream& out_;
  bool bar_;
  bool drawn_ = false;
  std::int64_t steps_;
  std::int64_t line_every_;
  std::int64_t finished_ = 0;
  std::string what_;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace genome
