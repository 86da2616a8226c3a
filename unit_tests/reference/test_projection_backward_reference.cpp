// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cstdint>
#include <krait/reference/projection.hpp>
#include <krait/reference/projection_backward.hpp>
#include <vector>

#include <support/finite_differences.hpp>

/// Every gradient of the reference projection against finite differences of the reference projection.

namespace {

using krait::test::all_close;
using krait::test::by_differences;
using krait::test::finite_differences;
using krait::test::normal_numbers;
using krait::test::weighted_sum;

void expect_gradients(std::int64_t tokens, std::int64_t inputs, std::int64_t outputs, bool biased) {
  std::vector<double> in = normal_numbers(1, tokens * inputs);
  std::vector<double> weight = normal_numbers(2, outputs * inputs);
  std::vector<double> bias = biased ? normal_numbers(3, outputs) : std::vector<double>();
  const std::vector<double> dout = normal_numbers(4, tokens * outputs);
  const auto loss = [&] { return weighted_sum(dout, krait::reference::projection(inputs, outputs, in, weight, bias)); };
  const auto d = krait::reference::projection_backward(inputs, outputs, in, weight, dout);
  EXPECT_TRUE(all_close(d.in, finite_differences(in, loss), by_differences()));
  EXPECT_TRUE(all_close(d.weight, finite_differences(weight, loss), by_differences()));
  if (biased) {
    EXPECT_TRUE(all_close(d.bias, finite_differences(bias, loss), by_differences()));
  }
}

TEST(ProjectionBackwardReference, Gradients) {
  expect_gradients(5, 3, 7, true);
  expect_gradients(5, 7, 3, false);
  expect_gradients(1, 1, 1, true);
}

TEST(ProjectionBackwardReference, NoTokens) {
  const auto d = krait::reference::projection_backward(2, 3, {}, normal_numbers(2, 6), {});
  EXPECT_TRUE(d.in.empty());
  EXPECT_EQ(d.weight, std::vector<double>(6, 0.0));
  EXPECT_EQ(d.bias, std::vector<double>(3, 0.0));
}

}  // namespace
