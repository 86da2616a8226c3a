// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "../options.hpp"

namespace {

using genome::Options;
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
  EXPECT_TRUE(options.check);
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

TEST(Options, OfTwoSourcesTheLastCounts) {
  EXPECT_EQ(parse({"--fasta", "a.fa", "--synthetic", "5"}).synthetic, 5);
  EXPECT_EQ(parse({"--synthetic", "5", "--fasta", "a.fa"}).synthetic, 0);
}

TEST(Options, RefusesWhatItCannotRead) {
  EXPECT_THAT([] { parse({"--lenght", "3"}); }, refuses("unknown option '--lenght'"));
  EXPECT_THAT([] { parse({"genome.fa"}); }, refuses("unknown option 'genome.fa'"));
  EXPECT_THAT([] { parse({"--length"}); }, refuses("--length needs a value"));
  EXPECT_THAT([] { parse({"--length", "12k"}); }, refuses("--length takes a whole number of at least 1, got '12k'"));
  EXPECT_THAT([] { parse({"--synthetic", "9223372036854775807"}); },
              refuses("--synthetic takes a whole number of at most 1099511627776"));
  EXPECT_THAT([] { parse({"--synthetic", "0"}); }, refuses("at least 1, got '0'"));
  EXPECT_THAT([] { parse({"--synthetic", "-5"}); }, refuses("at least 1, got '-5'"));
  EXPECT_THAT([] { parse({"--synthetic", "99999999999999999999"}); }, refuses("got '99999999999999999999'"));
  EXPECT_THAT([] { parse({"--layout", "spiral"}); }, refuses("--layout takes one of contiguous, zigzag, got 'spiral'"));
  EXPECT_THAT([] { parse({"--fasta="}); }, refuses("--fasta takes the path of a file, got ''"));
}

TEST(Options, HelpNamesEveryOption) {
  const std::string help = genome::help_text();
  for (const char* option : {"--fasta", "--synthetic", "--length", "--layout", "--layers", "--d-model", "--seed",
                             "--prefix", "--no-check", "--progress", "--help"}) {
    EXPECT_THAT(help, HasSubstr(option));
  }
}

}  // namespace
