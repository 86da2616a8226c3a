// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "genome_common/progress.hpp"

namespace {

using genome::Progress;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

TEST(Progress, WithoutABarEveryStepIsALine) {
  std::ostringstream out;
  Progress progress(out, false, 2);
  progress.begin("one");
  progress.done();
  progress.begin("two");
  progress.done();
  progress.clear();
  EXPECT_THAT(out.str(), MatchesRegex("  \\[1/2\\] one, [0-9.]+ s\n  \\[2/2\\] two, [0-9.]+ s\n"));
}

TEST(Progress, LinesMayBeThinnedOutAndSayTheOutcome) {
  std::ostringstream out;
  Progress progress(out, false, 5, 2);
  for (int step = 1; step <= 5; ++step) {
    progress.begin("working");
    progress.done("loss " + std::to_string(step));
  }
  EXPECT_THAT(out.str(), MatchesRegex("  \\[2/5\\] loss 2, [0-9.]+ s\n  \\[4/5\\] loss 4, [0-9.]+ s\n"
                                      "  \\[5/5\\] loss 5, [0-9.]+ s\n"));
}

TEST(Progress, TheBarIsDrawnOverItselfAndTakenAway) {
  std::ostringstream out;
  {
    Progress progress(out, true, 2);
    progress.begin("one");
    progress.done();
    EXPECT_THAT(out.str(), HasSubstr("[###############...............] 50 % one"));
  }
  EXPECT_THAT(out.str(), Not(HasSubstr("\n")));
  EXPECT_THAT(out.str(), EndsWith("\r\x1b[K"));
}

TEST(Progress, WhatFollowsATakenAwayBarIsLeftAlone) {
  std::ostringstream out;
  {
    Progress progress(out, true, 1);
    progress.begin("one");
    progress.clear();
    out << "the end\n";
  }
  EXPECT_THAT(out.str(), EndsWith("the end\n"));
}

}  // namespace
