// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "../options.hpp"

namespace {

using genome::Options;
using krait::Strategy;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "krait_genome");
  return genome::parse_options(static_cast<int>(arguments.size()), arguments.data());
}

auto refuses(const std::string& what) { return ThrowsMessage<krait::ConfigError>(HasSubstr(what)); }

TEST(Options, DefaultsAreTheMainJob) {
  const Options options = parse({});
  EXPECT_THAT(options.path(), HasSubstr("lambda_virus.fa.gz"));
  EXPECT_EQ(options.layers, 4);
  EXPECT_EQ(options.d_model, 128);
  EXPECT_EQ(options.layout, genome::LayoutKind::zigzag);
  EXPECT_THAT(options.strategies, ElementsAre(Strategy::hidden_parallel, Strategy::state_passing));
  EXPECT_TRUE(options.check);
}

TEST(Options, TakesOneStrategyOrBoth) {
  EXPECT_THAT(parse({"--strategy", "hidden_parallel"}).strategies, ElementsAre(Strategy::hidden_parallel));
  EXPECT_THAT(parse({"--strategy=state_passing"}).strategies, ElementsAre(Strategy::state_passing));
  EXPECT_THAT(parse({"--strategy=state_passing", "--strategy=both"}).strategies,
              ElementsAre(Strategy::hidden_parallel, Strategy::state_passing));
}

TEST(Options, TakesValuesInBothForms) {
  const Options options =
      parse({"--length", "1048576", "--layout=contiguous", "--seed=7", "--no-check", "--fasta=a=b.fa"});
  EXPECT_EQ(options.length, 1048576);
  EXPECT_EQ(options.layout, genome::LayoutKind::contiguous);
  EXPECT_EQ(options.seed, 7U);
  EXPECT_FALSE(options.check);
  EXPECT_EQ(options.path(), "a=b.fa");
}

TEST(Options, RefusesWhatItCannotRead) {
  EXPECT_THAT([] { parse({"--lenght", "3"}); }, refuses("unknown option '--lenght'"));
  EXPECT_THAT([] { parse({"--layers", "0"}); }, refuses("--layers takes a whole number of at least 1, got '0'"));
  EXPECT_THAT([] { parse({"--prefix", "-1"}); }, refuses("--prefix takes a whole number of at least 0, got '-1'"));
  EXPECT_THAT([] { parse({"--progress", "none"}); }, refuses("--progress takes one of auto, bar, lines, got 'none'"));
  EXPECT_THAT([] { parse({"--strategy", "local"}); },
              refuses("--strategy takes one of both, hidden_parallel, state_passing, got 'local'"));
}

TEST(Options, HelpNamesEveryOption) {
  const std::string help = genome::help_text();
  for (const char* option : {"--fasta", "--synthetic", "--length", "--layout", "--layers", "--d-model", "--seed",
                             "--prefix", "--strategy", "--no-check", "--progress", "--help"}) {
    EXPECT_THAT(help, HasSubstr(option));
  }
}

}  // namespace
