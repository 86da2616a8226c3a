// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/core/random.hpp>

namespace {

TEST(Random, ValuesAreFunctionsOfSeedStreamAndIndex) {
  EXPECT_EQ(krait::uniform(1, 2, 3), krait::uniform(1, 2, 3));
  EXPECT_NE(krait::uniform(1, 2, 3), krait::uniform(1, 2, 4));
  EXPECT_NE(krait::uniform(1, 2, 3), krait::uniform(1, 3, 3));
  EXPECT_NE(krait::uniform(1, 2, 3), krait::uniform(2, 2, 3));
}

TEST(Random, SplitMixMatchesThePublishedSequence) {
  // First output of SplitMix64 from seed 0, as in its authors' reference program.
  EXPECT_EQ(krait::mix64(0), 0xe220a8397b1dcdafULL);
}

TEST(Random, MomentsAreThoseOfTheDistributions) {
  constexpr int count = 200000;
  double sum = 0;
  double sum_of_squares = 0;
  double normal_sum = 0;
  double normal_squares = 0;
  for (int i = 0; i < count; ++i) {
    const double u = krait::uniform(7, 0, i);
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    sum_of_squares += u * u;
    const double n = krait::normal(7, 1, i);
    normal_sum += n;
    normal_squares += n * n;
  }
  // Five standard errors of each mean.
  EXPECT_NEAR(sum / count, 0.5, 5 * std::sqrt(1.0 / 12 / count));
  EXPECT_NEAR(sum_of_squares / count, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / count));
  EXPECT_NEAR(normal_sum / count, 0.0, 5 / std::sqrt(count));
  EXPECT_NEAR(normal_squares / count, 1.0, 5 * std::sqrt(2.0 / count));
}

}  // namespace
