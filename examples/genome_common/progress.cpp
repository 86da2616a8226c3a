// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <sstream>

namespace genome {
namespace {

constexpr int bar_width = 30;
constexpr const char* erase_line = "\r\x1b[K";

bool shows_a_terminal() {
  return isatty(STDOUT_FILENO) != 0 && std::getenv("PMIX_RANK") == nullptr && std::getenv("PMI_RANK") == nullptr;
}

}  // namespace

void add_progress_option(OptionParser& parser, ProgressKind& kind) {
  parser.add("--progress", command_line::choice<ProgressKind>(kind, {{"auto", ProgressKind::automatic},
                                                                     {"bar", ProgressKind::bar},
                                                                     {"lines", ProgressKind::lines}}));
}

bool wants_bar(ProgressKind kind) {
  return kind == ProgressKind::bar || (kind == ProgressKind::automatic && shows_a_terminal());
}

void Progress::begin(const std::string& what) {
  what_ = what;
  since_ = std::chrono::steady_clock::now();
  if (bar_) draw();
}

void Progress::done() {
  finished_ = std::min(finished_ + 1, steps_);
  if (bar_) {
    draw();
    return;
  }
  if (finished_ % line_every_ != 0 && finished_ != steps_) return;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - since_;
  std::ostringstream line;
  line << "  [" << finished_ << '/' << steps_ << "] " << what_ << ", " << std::fixed << std::setprecision(2)
       << seconds.count() << " s\n";
  out_ << line.str() << std::flush;
}

void Progress::done(const std::string& outcome) {
  what_ = outcome;
  done();
}

void Progress::draw() {
  drawn_ = true;
  const auto filled = static_cast<std::size_t>(steps_ > 0 ? finished_ * bar_width / steps_ : bar_width);
  out_ << erase_line << '[' << std::string(filled, '#') << std::string(bar_width - filled, '.') << "] "
       << (steps_ > 0 ? 100 * finished_ / steps_ : 100) << " % " << what_ << std::flush;
}

void Progress::clear() {
  if (drawn_) out_ << erase_line << std::flush;
  drawn_ = false;
}

}  // namespace genome
