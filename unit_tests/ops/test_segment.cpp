// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/ops/segment.hpp>
#include <limits>

namespace {

using krait::advance;
using krait::combine;
using Decay = krait::SegmentDecay<double>;

TEST(Segment, CombiningIsAssociativeAndEqualsWalking) {
  const Decay decays[] = {{-0.3, true}, {-2.0, true}, {-0.01, false}, {-1.5, true}};
  const double own[] = {0.5, -1.0, 2.0, 0.25};
  double walked = 3.0;
  for (int i = 0; i < 4; ++i) walked = advance(decays[i], walked, own[i]);

  const Decay left = combine(decays[0], decays[1]);
  const Decay right = combine(decays[2], decays[3]);
  const double own_left = advance(decays[1], own[0], own[1]);
  const double own_right = advance(decays[3], own[2], own[3]);
  EXPECT_DOUBLE_EQ(advance(combine(left, right), 3.0, advance(right, own_left, own_right)), walked);
  EXPECT_DOUBLE_EQ(left.log_alpha, -2.3);
  EXPECT_TRUE(left.carries);
  EXPECT_FALSE(right.carries);
}

TEST(Segment, NothingIsItsNeutralElement) {
  const Decay decay{-0.7, true};
  EXPECT_EQ(combine(Decay{}, decay).log_alpha, decay.log_alpha);
  EXPECT_EQ(combine(decay, Decay{}).log_alpha, decay.log_alpha);
  EXPECT_EQ(advance(Decay{}, 5.0, 0.0), 5.0);
}

TEST(Segment, AResetDropsEvenInfinities) {
  const double infinite = std::numeric_limits<double>::infinity();
  EXPECT_EQ(advance(Decay{0.0, false}, infinite, 1.5), 1.5);
  // A decay that underflows is a factor 0, not a NaN.
  EXPECT_EQ(advance(combine(Decay{-800.0, true}, Decay{-800.0, true}), 4.0, 1.5), 1.5);
}

}  // namespace
