// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "genome_common/sequence.hpp"

namespace {

using genome::Base;
using genome::InputOptions;
using genome::make_sequence;
using genome::Sequence;

TEST(Sequence, SyntheticBasesDependOnTheSeedAlone) {
  InputOptions options;
  options.synthetic = 1000;
  const Sequence one = make_sequence(options);
  const Sequence again = make_sequence(options);
  options.seed = 43;
  const Sequence other = make_sequence(options);
  EXPECT_EQ(one.bases, again.bases);
  EXPECT_NE(one.bases, other.bases);
  EXPECT_EQ(std::set<Base>(one.bases.begin(), one.bases.end()), (std::set<Base>{1, 2, 4, 8}));
  EXPECT_EQ(one.length, 1000);
}

TEST(Sequence, IsRepeatedOrCutToALength) {
  Sequence sequence;
  sequence.bases = {1, 2, 4};
  EXPECT_EQ(sequence.at(2), 4);
  EXPECT_EQ(sequence.at(3), 1);
  EXPECT_EQ(sequence.at(std::int64_t{3} << 40), 1);
  InputOptions options;
  options.synthetic = 10;
  options.length = 4;
  EXPECT_EQ(make_sequence(options).length, 4);
}

}  // namespace
