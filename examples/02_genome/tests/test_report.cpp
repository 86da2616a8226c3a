// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include "../difference.hpp"
#include "../report.hpp"

namespace {

using genome::complaints;
using genome::Difference;
using genome::difference;
using genome::Report;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Difference, IsRelativeToTheWantedValues) {
  const std::vector<float> got = {3.0F, 4.5F};
  const std::vector<double> wanted = {3.0, 4.0};
  const Difference found = difference(got.data(), wanted.data(), got.size());
  EXPECT_DOUBLE_EQ(found.relative_rms, 0.1);
  EXPECT_DOUBLE_EQ(found.largest, 0.5);
}

TEST(Difference, OfNothingIsZero) {
  const std::vector<float> nothing;
  EXPECT_EQ(difference(nothing.data(), nothing.data(), 0).relative_rms, 0);
}

TEST(Difference, NotANumberNeverAgrees) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float one = 1;
  EXPECT_TRUE(std::isinf(difference(&nan, &one, 1).relative_rms));
  EXPECT_TRUE(std::isinf(difference(&one, &nan, 1).relative_rms));
  EXPECT_TRUE(std::isinf(difference(&nan, &nan, 1).relative_rms));
}

Report good() {
  Report report;
  report.length = 1000;
  report.layers = 4;
  report.ranks = 4;
  report.largest_share = 0.25;
  report.seconds = 0.5;
  report.exchanges = 8;
  report.one_rank_bytes = std::int64_t{100} << 20;
  report.peak_bytes = std::int64_t{31} << 20;
  report.against_one_rank = Difference{1e-6, 1e-5};
  report.against_reference = Difference{1e-6, 1e-5};
  return report;
}

TEST(Report, SaysNothingWhenAllIsWell) { EXPECT_THAT(complaints(good()), IsEmpty()); }

TEST(Report, ComplainsOfDifferences) {
  Report report = good();
  report.against_one_rank->relative_rms = 1.1e-5;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("differs from the run on one rank: relative RMS 1.10e-05")));
  report.against_reference->relative_rms = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("one rank"), HasSubstr("differs from the double-precision")));
}

TEST(Report, ComplainsOfMemoryBeyondTheShareAndTheConstant) {
  Report report = good();
  report.peak_bytes += 1;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("a rank needs 31.00 MiB of activations")));
}

TEST(Report, ComplainsOfExchangesTooManyOrTooFew) {
  Report report = good();
  report.exchanges = 9;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("exchanged 9 times, expected 8")));
  report.ranks = 1;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("exchanged 9 times, expected 0")));
}

TEST(Report, PrintsTheFiguresThatScriptsRead) {
  std::ostringstream out;
  print(out, good());
  EXPECT_THAT(out.str(), HasSubstr("peak activations  32505856 bytes per rank, 104857600 bytes on one rank"));
  EXPECT_THAT(out.str(), HasSubstr("2000 tokens/s"));
  EXPECT_THAT(out.str(), HasSubstr("2 exchanges a layer"));
}

}  // namespace
