// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "../difference.hpp"
#include "../report.hpp"

namespace {

using genome::complaints;
using genome::Difference;
using genome::difference;
using genome::Outcome;
using genome::Report;
using krait::Strategy;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

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

Outcome good(Strategy strategy) {
  Outcome outcome;
  outcome.strategy = strategy;
  outcome.largest_share = 0.25;
  outcome.seconds = strategy == Strategy::state_passing ? 0.25 : 0.5;
  outcome.exchanges = 8;
  outcome.peak_bytes = std::int64_t{31} << 20;
  outcome.against_one_rank = Difference{1e-6, 1e-5};
  outcome.against_reference = Difference{2e-6, 1e-5};
  return outcome;
}

Report good() {
  Report report;
  report.length = 1000;
  report.layers = 4;
  report.ranks = 4;
  report.one_rank_bytes = std::int64_t{100} << 20;
  report.outcomes = {good(Strategy::hidden_parallel), good(Strategy::state_passing)};
  return report;
}

std::string printed(const Report& report) {
  std::ostringstream out;
  print(out, report);
  return out.str();
}

TEST(Report, SaysNothingWhenAllIsWell) { EXPECT_THAT(complaints(good()), IsEmpty()); }

TEST(Report, ComplainsOfDifferences) {
  Report report = good();
  report.outcomes[1].against_one_rank->relative_rms = 1.1e-5;
  EXPECT_THAT(
      complaints(report),
      ElementsAre(HasSubstr("state_passing: the result differs from the run on one rank: relative RMS 1.10e-05")));
  report.outcomes[0].against_reference->relative_rms = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(complaints(report),
              ElementsAre(HasSubstr("hidden_parallel: the result differs from the double-precision"),
                          HasSubstr("state_passing: ")));
}

TEST(Report, ComplainsOfMemoryBeyondTheShareAndTheConstant) {
  Report report = good();
  report.outcomes[1].peak_bytes += 1;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("state_passing: a rank needs 31.00 MiB of activations")));
}

TEST(Report, EachStrategyHasItsShare) {
  Report report = good();
  for (Outcome& outcome : report.outcomes) outcome.peak_bytes *= 2;
  report.outcomes[0].largest_share = 0.6;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("state_passing: a rank needs 62.00 MiB of activations")));
}

TEST(Report, ComplainsOfExchangesTooManyOrTooFew) {
  Report report = good();
  report.outcomes[0].exchanges = 9;
  report.outcomes[1].exchanges = 4;
  EXPECT_THAT(complaints(report), ElementsAre("hidden_parallel: the ranks exchanged 9 times, expected 8",
                                              "state_passing: the ranks exchanged 4 times, expected 8"));
  report.ranks = 1;
  report.outcomes = {good(Strategy::local)};
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("local: the ranks exchanged 8 times, expected 0")));
}

TEST(Report, PutsTheStrategiesSideBySide) {
  Report report = good();
  report.outcomes[0].bytes_sent = std::int64_t{3} << 20;
  report.outcomes[1].exchanges = 12;
  const std::string table = printed(report);
  EXPECT_THAT(table, ContainsRegex("strategy +hidden_parallel +state_passing\n"));
  EXPECT_THAT(table, ContainsRegex("time +0.500 s +0.250 s\n"));
  EXPECT_THAT(table, ContainsRegex("tokens/s +2000 +4000\n"));
  EXPECT_THAT(table, ContainsRegex("sent per rank +3.00 MiB +0.00 MiB  in all\n"));
  EXPECT_THAT(table, ContainsRegex("exchanges +2 +3  a layer\n"));
  EXPECT_THAT(table, ContainsRegex("at most +0.300 +0.300  of one rank's, plus 1.00 MiB\n"));
  EXPECT_THAT(table, ContainsRegex("against one rank +1.00e-06 +1.00e-06  relative RMS, at most 1e-05\n"));
  EXPECT_THAT(table, ContainsRegex("against reference +2.00e-06 +2.00e-06  relative RMS"));
}

TEST(Report, ItsColumnsAreAligned) {
  std::istringstream table(printed(good()));
  std::vector<std::string> lines;
  for (std::string line; std::getline(table, line);) lines.push_back(line);
  const std::size_t end_of_first = lines[1].find("hidden_parallel") + std::string("hidden_parallel").size();
  const std::size_t end_of_second = lines[1].size();
  for (std::size_t i = 1; i < lines.size(); ++i) {
    ASSERT_GE(lines[i].size(), end_of_second) << lines[i];
    for (const std::size_t end : {end_of_first, end_of_second}) {
      EXPECT_NE(lines[i][end - 1], ' ') << lines[i];
      EXPECT_TRUE(end == lines[i].size() || lines[i][end] == ' ') << lines[i];
    }
  }
}

TEST(Report, PrintsTheFiguresThatScriptsRead) {
  EXPECT_THAT(printed(good()), ContainsRegex("peak activations +32505856 +32505856  bytes per rank, 104857600 bytes on "
                                             "one rank"));
}

TEST(Report, WhatWasNotComparedHasNoRow) {
  Report report = good();
  for (Outcome& outcome : report.outcomes) outcome.against_one_rank.reset();
  EXPECT_THAT(printed(report), Not(HasSubstr("against one rank")));
  EXPECT_THAT(summary(report), AllOf(Not(HasSubstr("one rank")), HasSubstr("equal to the reference")));
}

TEST(Report, SummaryNamesTheStrategies) {
  EXPECT_EQ(
      summary(good()),
      "1000 tokens on 4 ranks, hidden_parallel and state_passing, equal to one rank, equal to the reference, 2000 "
      "and 4000 tokens/s");
}

}  // namespace
