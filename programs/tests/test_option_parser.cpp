// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "common/option_parser.hpp"

namespace {

using command_line::OptionParser;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

enum class Colour { red, green };

struct Values {
  std::int64_t count = 0;
  std::uint64_t seed = 0;
  double rate = 0;
  double decay = 0;
  std::string file;
  Colour colour = Colour::red;
  bool loud = false;
  std::vector<std::int64_t> sizes;
};

OptionParser parser_for(Values& values) {
  OptionParser parser;
  parser.add("--count", command_line::number(values.count, 1, 100));
  parser.add("--seed", command_line::number(values.seed));
  parser.add("--rate", command_line::real(values.rate, 0, 1));
  parser.add("--decay", command_line::real(values.decay, 0, 1, /*least_too=*/true));
  parser.add("--file", command_line::path(values.file));
  parser.add("--colour", command_line::choice<Colour>(values.colour, {{"red", Colour::red}, {"green", Colour::green}}));
  parser.add("--sizes", command_line::numbers(values.sizes, 1, 9));
  parser.add_flag("--loud", [&values] { values.loud = true; });
  return parser;
}

Values parse(std::vector<const char*> arguments) {
  Values values;
  arguments.insert(arguments.begin(), "program");
  parser_for(values).parse(static_cast<int>(arguments.size()), arguments.data());
  return values;
}

auto refuses(const std::string& what) { return ThrowsMessage<krait::ConfigError>(HasSubstr(what)); }

TEST(OptionParser, TakesValuesInBothForms) {
  const Values values = parse({"--count", "7", "--rate=3e-3", "--file=a=b", "--loud", "--colour", "green"});
  EXPECT_EQ(values.count, 7);
  EXPECT_EQ(values.rate, 3e-3);
  EXPECT_EQ(values.file, "a=b");
  EXPECT_TRUE(values.loud);
  EXPECT_EQ(values.colour, Colour::green);
}

TEST(OptionParser, NumbersHaveBounds) {
  EXPECT_THAT([] { parse({"--count", "0"}); }, refuses("--count takes a whole number of at least 1, got '0'"));
  EXPECT_THAT([] { parse({"--count", "101"}); }, refuses("--count takes a whole number of at most 100, got '101'"));
  EXPECT_THAT([] { parse({"--count", "1.5"}); }, refuses("got '1.5'"));
  EXPECT_THAT([] { parse({"--seed", "-1"}); }, refuses("--seed takes a whole number of at least 0, got '-1'"));
  EXPECT_THAT([] { parse({"--rate", "0"}); }, refuses("--rate takes a number above 0 and at most 1, got '0'"));
  EXPECT_THAT([] { parse({"--rate", "1.01"}); }, refuses("got '1.01'"));
  EXPECT_THAT([] { parse({"--rate", "nan"}); }, refuses("got 'nan'"));
  EXPECT_THAT([] { parse({"--rate", "0.1x"}); }, refuses("got '0.1x'"));
  EXPECT_EQ(parse({"--decay", "0"}).decay, 0);
  EXPECT_THAT([] { parse({"--decay=-0.1"}); }, refuses("--decay takes a number of at least 0 and at most 1"));
}

TEST(OptionParser, TakesNumbersBetweenCommas) {
  EXPECT_THAT(parse({"--sizes", "3"}).sizes, ElementsAre(3));
  EXPECT_THAT(parse({"--sizes=1,9,1"}).sizes, ElementsAre(1, 9, 1));
  EXPECT_THAT(parse({"--sizes", "1,2", "--sizes", "4"}).sizes, ElementsAre(4));
  EXPECT_THAT([] { parse({"--sizes", "1,10"}); }, refuses("--sizes takes a whole number of at most 9, got '10'"));
  EXPECT_THAT([] { parse({"--sizes", "1,"}); }, refuses("got ''"));
  EXPECT_THAT([] { parse({"--sizes="}); }, refuses("got ''"));
}

TEST(OptionParser, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT([] { parse({"--cuont", "3"}); }, refuses("unknown option '--cuont'"));
  EXPECT_THAT([] { parse({"file.txt"}); }, refuses("unknown option 'file.txt'"));
  EXPECT_THAT([] { parse({"--count"}); }, refuses("--count needs a value"));
  EXPECT_THAT([] { parse({"--loud=yes"}); }, refuses("unknown option '--loud=yes'"));
  EXPECT_THAT([] { parse({"--colour", "blue"}); }, refuses("--colour takes one of green, red, got 'blue'"));
  EXPECT_THAT([] { parse({"--file="}); }, refuses("--file takes the path of a file, got ''"));
}

TEST(OptionParser, KnowsItsNames) {
  Values values;
  EXPECT_THAT(parser_for(values).names(),
              ElementsAre("--colour", "--count", "--decay", "--file", "--loud", "--rate", "--seed", "--sizes"));
}

}  // namespace
