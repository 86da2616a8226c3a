// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <support/rank_listener.hpp>
#include <support/ranks.hpp>
#include <vector>

namespace krait::test {
namespace {

std::vector<std::string> split_at_zeros(const std::string& text) {
  std::vector<std::string> parts;
  for (auto at = text.begin(); at != text.end();) {
    const auto end = std::find(at, text.end(), '\0');
    parts.emplace_back(at, end);
    at = end == text.end() ? end : end + 1;
  }
  return parts;
}

// A signal handler sees only globals.
std::array<char, 256> watchdog_text{};

extern "C" void krait_test_is_stuck(int /*signal*/) {
  static_cast<void>(write(STDERR_FILENO, watchdog_text.data(), std::strlen(watchdog_text.data())) + 1);
  _exit(124);
}

}  // namespace

void RankListener::OnTestPartResult(const testing::TestPartResult& result) {
  if (!result.failed() || gathering_) return;
  failures_ += result.file_name() == nullptr ? "" : result.file_name();
  failures_ += '\0' + std::to_string(result.line_number()) + '\0' + result.message() + '\0';
}

void RankListener::OnTestEnd(const testing::TestInfo& /*test*/) {
  gathering_ = true;
  const std::vector<std::string> texts = gather_on_root(failures_);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    const std::vector<std::string> parts = split_at_zeros(texts[rank]);
    for (std::size_t i = 0; i + 2 < parts.size(); i += 3) {
      ADD_FAILURE_AT(parts[i].c_str(), std::atoi(parts[i + 1].c_str())) << "[rank " << rank << "] " << parts[i + 2];
    }
  }
  const bool somewhere = largest_of_ranks(failures_.empty() ? 0 : 1) != 0;
  if (somewhere && failures_.empty() && world_place().rank != 0) ADD_FAILURE() << "failed on another rank";
  failures_.clear();
  gathering_ = false;
}

Watchdog::Watchdog() : seconds_(240) {
  if (const char* given = std::getenv("KRAIT_TEST_SECONDS")) seconds_ = static_cast<unsigned>(std::atoi(given));
  std::signal(SIGALRM, krait_test_is_stuck);
}

void Watchdog::OnTestStart(const testing::TestInfo& test) {
  const std::string text = "krait test: rank " + std::to_string(world_place().rank) + " is stuck in " +
                           test.test_suite_name() + "." + test.name() + " for " + std::to_string(seconds_) + " s\n";
  watchdog_text.fill('\0');
  text.copy(watchdog_text.data(), watchdog_text.size() - 1);
  alarm(seconds_);
}

void Watchdog::OnTestEnd(const testing::TestInfo& /*test*/) { alarm(0); }

}  // namespace krait::test
