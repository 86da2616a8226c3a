// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <krait/core/error.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "krait_plan/check.hpp"
#include "krait_plan/machine_file.hpp"
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
  for (const double value :
       {options.machine.scan_flops, options.machine.memory_bandwidth, options.machine.network_bandwidth}) {
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
                                       "--backward", "--scalar", "float", "--decay", "slow"});
  const krait::Workload work = options.workload(2, 11);
  EXPECT_STREQ(work.sharding.kind(), "zigzag_docs");
  EXPECT_EQ(work.sharding.length(), 11);
  EXPECT_EQ(work.sharding.segments(), 6);  // 4, 4 and 3 tokens, of ranks 0 1 0, 0 1 0 and 0 1; what touches is one
  EXPECT_EQ(work.batch, 5);
  EXPECT_EQ(work.threads, 7);
  EXPECT_TRUE(work.backward);
  EXPECT_EQ(work.scalar_bytes, 4);
  EXPECT_EQ(work.decay, krait::Decay::slow);
}

TEST(KraitPlan, RatesKeepTheirProportions) {
  const krait::Machine machine = parse({"--flops", "1e12", "--memory-bandwidth", "1e11", "--latency", "1e-6"}).machine;
  const krait::Machine defaults;
  EXPECT_DOUBLE_EQ(machine.scan_flops, 1e12);
  EXPECT_DOUBLE_EQ(machine.scan_backward_flops, 2 * defaults.scan_backward_flops);
  EXPECT_DOUBLE_EQ(machine.summary_flops, 2 * defaults.summary_flops);
  EXPECT_DOUBLE_EQ(machine.conv_bandwidth, 2 * defaults.conv_bandwidth);
  EXPECT_DOUBLE_EQ(machine.conv_backward_bandwidth, 2 * defaults.conv_backward_bandwidth);
  EXPECT_EQ(machine.network_bandwidth, defaults.network_bandwidth);
  EXPECT_EQ(machine.latency, 1e-6);
}

/// A file that lives as long as this.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text)
      : path_(testing::TempDir() + "krait_plan_machine_" + std::to_string(++number) + ".json") {
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  [[nodiscard]] const char* path() const { return path_.c_str(); }

 private:
  static inline int number = 0;
  std::string path_;
};

TEST(KraitPlan, MachinesAreReadAsTheyWereWritten) {
  krait::Machine machine;
  double value = 1.0 / 3;
  for (const auto& [name, member] : krait::Machine::members()) machine.*member = (value *= 1e3 / 7);
  std::ostringstream text;
  plan::write_machine(text, machine);
  const TemporaryFile file(text.str());
  EXPECT_EQ(plan::read_machine(file.path()), machine);
  EXPECT_EQ(parse({"--machine", file.path()}).machine, machine);
  // Options come on top, wherever they stand.
  EXPECT_EQ(parse({"--bandwidth", "5", "--machine", file.path()}).machine.network_bandwidth, 5);

  const TemporaryFile partly("{\"latency\" : 2.5e-3}");
  krait::Machine expected;
  expected.latency = 2.5e-3;
  EXPECT_EQ(plan::read_machine(partly.path()), expected);
}

TEST(KraitPlan, SaysWhatIsWrongWithAMachineFile) {
  const auto error_of = [](const std::string& text) -> std::string {
    const TemporaryFile file(text);
    try {
      plan::read_machine(file.path());
    } catch (const krait::ConfigError& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_THAT(error_of("{\"speed\": 3}"), HasSubstr("a machine has no 'speed'"));
  EXPECT_THAT(error_of("{\"latency\": fast}"), HasSubstr("latency is no number"));
  EXPECT_THAT(error_of("{\"latency\": -1}"), HasSubstr("latency is -1"));
  EXPECT_THAT(error_of("{\"latency\" 1}"), HasSubstr("expected : at character 12"));
  EXPECT_THAT(error_of("{\"latency\": 1"), HasSubstr("expected ,"));
  EXPECT_THAT(error_of("{\"latency"), HasSubstr("expected \""));
  EXPECT_THAT(error_of("{} {}"), HasSubstr("something follows"));
  EXPECT_THAT(error_of(""), HasSubstr("expected {"));
  for (const char* path : {"/no/such/file", "/"})
    EXPECT_THAT([path] { plan::read_machine(path); },
                testing::ThrowsMessage<krait::ConfigError>(HasSubstr("cannot be read")));
}

TEST(KraitPlan, ChecksTellHowGoodAChoiceWas) {
  using krait::StateExchange;
  using krait::Strategy;
  plan::Check check;
  check.predicted.predictions = {
      {.strategy = Strategy::hidden_parallel, .seconds = 2, .bytes_sent_per_rank = 7, .messages = 1},
      {.strategy = Strategy::state_passing, .exchange = StateExchange::chain, .seconds = 1}};
  check.predicted.winner = 1;
  check.measured = {{.candidate = {Strategy::hidden_parallel},
                     .shortest = 1.6,
                     .relative = 0.8,
                     .bytes_sent_per_rank = 7,
                     .messages = 1},
                    {.candidate = {Strategy::state_passing, StateExchange::chain},
                     .shortest = 2,
                     .relative = 1,
                     .bytes_sent_per_rank = 1}};
  EXPECT_EQ(&check.fastest(), check.measured.data());
  EXPECT_DOUBLE_EQ(check.regret(), 1.25);
  EXPECT_DOUBLE_EQ(check.error(check.measured[0]), 0.25);
  EXPECT_DOUBLE_EQ(check.error(check.measured[1]), -0.5);
  EXPECT_TRUE(check.exact(check.measured[0]));
  EXPECT_FALSE(check.exact(check.measured[1]));
  plan::Check good = check;
  good.predicted.winner = 0;
  std::ostringstream summary;
  plan::print_summary(summary, {check, good});
  EXPECT_EQ(summary.str(),
            "2 cases: the choice was the fastest in 1, the fastest or within 5 % of it in 1; at worst 25.0 % slower\n"
            "4 times: error 50.0 % in the median, 50.0 % at most, within 25 % in 2\n"
            "bytes and messages as counted in 2 of 4\n");
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
