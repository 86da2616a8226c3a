// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "genome_common/input_options.hpp"

namespace {

using genome::InputOptions;
using genome::LayoutKind;
using genome::OptionParser;
using testing::HasSubstr;
using testing::ThrowsMessage;

InputOptions parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "program");
  InputOptions options;
  OptionParser parser;
  add_input_options(parser, options);
  parser.parse(static_cast<int>(arguments.size()), arguments.data());
  return options;
}

auto refuses(const std::string& what) { return ThrowsMessage<krait::ConfigError>(HasSubstr(what)); }

TEST(InputOptions, TheDefaultIsTheWholePhageInZigzag) {
  const InputOptions options = parse({});
  EXPECT_THAT(options.path(), HasSubstr("lambda_virus.fa.gz"));
  EXPECT_EQ(options.layout, LayoutKind::zigzag);
  EXPECT_EQ(options.length, 0);
}

TEST(InputOptions, OfTwoSourcesTheLastCounts) {
  EXPECT_EQ(parse({"--fasta", "a.fa", "--synthetic", "5"}).synthetic, 5);
  EXPECT_EQ(parse({"--synthetic", "5", "--fasta", "a.fa"}).synthetic, 0);
}

TEST(InputOptions, RefusesWhatItCannotRead) {
  EXPECT_THAT([] { parse({"--length", "12k"}); }, refuses("--length takes a whole number of at least 1, got '12k'"));
  EXPECT_THAT([] { parse({"--synthetic", "9223372036854775807"}); },
              refuses("--synthetic takes a whole number of at most 1099511627776"));
  EXPECT_THAT([] { parse({"--synthetic", "0"}); }, refuses("at least 1, got '0'"));
  EXPECT_THAT([] { parse({"--synthetic", "-5"}); }, refuses("at least 1, got '-5'"));
  EXPECT_THAT([] { parse({"--synthetic", "99999999999999999999"}); }, refuses("got '99999999999999999999'"));
  EXPECT_THAT([] { parse({"--layout", "spiral"}); }, refuses("--layout takes one of contiguous, zigzag, got 'spiral'"));
  EXPECT_THAT([] { parse({"--fasta="}); }, refuses("--fasta takes the path of a file, got ''"));
}

TEST(InputOptions, HelpNamesEveryOption) {
  InputOptions options;
  OptionParser parser;
  add_input_options(parser, options);
  for (const std::string& name : parser.names()) EXPECT_THAT(genome::input_options_help("all"), HasSubstr(name));
}

TEST(InputOptions, LayoutsAreKraits) {
  const krait::Place second{1, 2};
  EXPECT_EQ(make_layout(LayoutKind::zigzag, second, 8), krait::SequenceLayout::zigzag(second, 8));
  EXPECT_EQ(make_layout(LayoutKind::contiguous, second, 8), krait::SequenceLayout::contiguous(second, 8));
}

}  // namespace
