// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <support/ranks.hpp>

namespace {

TEST(FailingRank, LastRankFails) {
  const krait::Place place = krait::test::world_place();
  EXPECT_NE(place.rank, place.size - 1) << "said on purpose";
}

TEST(FailingRank, OthersGoOn) { EXPECT_TRUE_ON_ALL_RANKS(true); }

}  // namespace
