// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>

#include "../report.hpp"

namespace {

using genome::train::complaints;
using genome::train::Report;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

Report good() {
  Report report;
  report.length = 1000;
  report.ranks = 4;
  report.steps = 30;
  report.seconds = 15;
  report.first_loss = 2.5;
  report.last = {.number = 30, .bits_per_base = 1.94, .gradient_norm = 0.1};
  report.context_entropies = {2, 1.98, 1.95, 1.93, 1.9};
  report.largest_share = 0.25;
  report.one_rank_bytes = std::int64_t{100} << 20;
  report.peak_bytes = std::int64_t{31} << 20;
  return report;
}

TEST(TrainReport, SaysNothingWhenAllIsWell) { EXPECT_THAT(complaints(good()), IsEmpty()); }

TEST(TrainReport, ComplainsOfALossThatDidNotFall) {
  Report report = good();
  report.last.bits_per_base = 2.5;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("the loss did not fall: 2.5000 -> 2.5000")));
  report.last.number = 1;  // nothing to compare with yet
  EXPECT_THAT(complaints(report), IsEmpty());
}

TEST(TrainReport, ComplainsOfWhatIsNotFinite) {
  Report report = good();
  report.last.gradient_norm = std::numeric_limits<double>::infinity();
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("the gradient is not finite in step 30")));
  report.last.bits_per_base = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("the loss is not finite in step 30")));
}

TEST(TrainReport, ComplainsOfRanksThatDiffer) {
  Report report = good();
  report.parameters_agree = false;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("different parameters")));
}

TEST(TrainReport, ComplainsOfMemoryBeyondTheShareAndTheConstant) {
  Report report = good();
  report.peak_bytes += 1;
  EXPECT_THAT(complaints(report), ElementsAre(HasSubstr("a rank needs 31.00 MiB of activations")));
  report.parameter_bytes = 1;
  EXPECT_THAT(complaints(report), IsEmpty());
}

TEST(TrainReport, PrintsTheFiguresThatScriptsRead) {
  std::ostringstream out;
  print(out, good());
  EXPECT_THAT(out.str(), AllOf(HasSubstr("peak activations  32505856 bytes per rank, 104857600 bytes on one rank"),
                               HasSubstr("2.5000 -> 1.9400 bits per base in 30 steps"), HasSubstr("2000 tokens/s")));
}

TEST(TrainReport, SummaryNamesTheBestContextModelThatIsBeaten) {
  Report report = good();
  EXPECT_THAT(summary(report), HasSubstr("below order 2 (1.9500)"));
  report.last.bits_per_base = 2.1;
  EXPECT_THAT(summary(report), Not(HasSubstr("below")));
}

}  // namespace
