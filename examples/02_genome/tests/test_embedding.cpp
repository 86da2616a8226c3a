// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include "../embedding.hpp"

namespace {

using genome::Base;
using genome::Embedding;

TEST(Embedding, AnUncertainBaseIsTheMeanOfThoseItMayBe) {
  const Embedding embedding(8, 42);
  const Base purine = genome::base_from_letter('R');
  const Base any = genome::base_from_letter('N');
  for (std::int64_t j = 0; j < 8; ++j) {
    EXPECT_NEAR(embedding(purine, j), (embedding(1, j) + embedding(4, j)) / 2, 1e-6);
    EXPECT_NEAR(embedding(any, j), (embedding(1, j) + embedding(2, j) + embedding(4, j) + embedding(8, j)) / 4, 1e-6);
    EXPECT_NE(embedding(1, j), embedding(2, j));
  }
}

}  // namespace
