// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "krait_plan/options.hpp"
#include "krait_plan/report.hpp"

namespace {

using testing::HasSubstr;

plan::Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "krait-plan");
  return plan::parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(KraitPlan, DefaultsAreThoseOfTheHelp) {
  const plan::Options options = parse({});
  EXPECT_EQ(options.config.heads, 128);
  EXPECT_EQ(options.length, 32768);
  EXPECT_EQ(options.scalar_bytes, 2);
  EXPECT_EQ(options.ranks.size(), 13);
  const auto number = [](double value) {
    std::ostringstream text;
    text << value;
    std::string digits = text.str();
    const std::size_t exponent = digits.find("e+");
    if (exponent != std::string::npos) digits.erase(exponent + 1, 1);
    return "(" + digits + ")\n";
  };
  for (const double value : {options.machine.scan_flops, options.machine.memory_bandwidth,
                             options.machine.network_bandwidth, options.summary_visits}) {
    EXPECT_THAT(plan::help_text(), HasSubstr(number(value)));
  }
  EXPECT_EQ(options.machine.latency, 5e-6);
  EXPECT_THAT(plan::help_text(), HasSubstr("(5e-6)\n"));
}

TEST(KraitPlan, EveryOptionChangesTheQuestion) {
  EXPECT_EQ(parse({"--d-conv", "2"}).config.d_conv, 2);
  EXPECT_EQ(parse({"--head-dim", "32"}).config.head_dim, 32);
  EXPECT_EQ(parse({"--d-state", "16"}).config.d_state, 16);
  const plan::Options options = parse({"--layout", "zigzag_docs", "--documents", "3", "--batch", "5", "--threads", "7",
                                       "--backward", "--scalar", "float", "--summary-visits", "0.5"});
  const krait::Workload work = options.workload(2, 11);
  EXPECT_STREQ(work.sharding.kind(), "zigzag_docs");
  EXPECT_EQ(work.sharding.length(), 11);
  EXPECT_EQ(work.sharding.segments(), 6);  // 4, 4 and 3 tokens, of ranks 0 1 0, 0 1 0 and 0 1; what touches is one
  EXPECT_EQ(work.batch, 5);
  EXPECT_EQ(work.threads, 7);
  EXPECT_TRUE(work.backward);
  EXPECT_EQ(work.scalar_bytes, 4);
  EXPECT_EQ(work.summary_visits, 0.5);
}

TEST(KraitPlan, ReignsBeginWhereThePlannerChangesItsMind) {
  const plan::Options options = parse({"--layout", "contiguous"});
  const krait::Planner planner(options.machine);
  const auto fastest = [&](std::int64_t tokens) { return planner.choose(options.workload(8, tokens)).best().name(); };
  const std::vector<plan::Reign> found = plan::reigns(options, 8);
  ASSERT_GE(found.size(), 2);
  EXPECT_EQ(found.front().from, 16);
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(fastest(found[i].from), found[i].strategy);
    if (i > 0) {
      EXPECT_EQ(fastest(found[i].from - 1), found[i - 1].strategy);
    }
  }
  EXPECT_THAT(plan::reigns(options, 1), testing::ElementsAre(plan::Reign{2, "local"}));
}

}  // namespace
