// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cstdint>
#include <krait/reference/gated_rms_norm_backward.hpp>
#include <vector>

#include <support/finite_differences.hpp>

/// Every gradient of the reference norm against finite differences of the reference norm.

namespace {

using krait::test::all_close;
using krait::test::by_differences;
using krait::test::finite_differences;
using krait::test::normal_numbers;
using krait::test::weighted_sum;

constexpr std::int64_t tokens = 5;
constexpr std::int64_t features = 12;

struct Case {
  std::int64_t group_size = features;
  bool norm_before_gate = false;
  bool normalize = true;
  bool gate = true;
  bool weight = true;
  bool bias = true;
  /// So large that a group of nearly zeros does not make the loss steeper than differences can follow.
  double epsilon = 0.1;
  double size = 1;  ///< of x
};

void expect_gradients(const Case& c) {
  const auto optional = [](bool given, std::uint64_t seed, std::int64_t count) {
    return given ? normal_numbers(seed, count) : std::vector<double>();
  };
  std::vector<double> x = normal_numbers(1, tokens * features, 0, c.size);
  std::vector<double> z = optional(c.gate, 2, tokens * features);
  std::vector<double> weight = optional(c.weight, 3, features);
  std::vector<double> bias = optional(c.bias, 4, features);
  const std::vector<double> dout = normal_numbers(5, tokens * features);
  const auto norm = [&] {
    return krait::reference::GatedRmsNorm{.features = features,
                                          .group_size = c.group_size,
                                          .norm_before_gate = c.norm_before_gate,
                                          .normalize = c.normalize,
                                          .epsilon = c.epsilon,
                                          .x = x,
                                          .z = z,
                                          .weight = weight,
                                          .bias = bias};
  };
  const auto loss = [&] { return weighted_sum(dout, norm()()); };
  const auto d = krait::reference::gated_rms_norm_backward(norm(), dout);
  const auto expect = [&](const char* name, const std::vector<double>& got, std::vector<double>& input, double step) {
    EXPECT_TRUE(all_close(got, finite_differences(input, loss, step), by_differences())) << "d" << name;
  };
  constexpr double step = 2e-4;
  expect("x", d.x, x, step * c.size);
  expect("z", d.z, z, step);
  expect("weight", d.weight, weight, step);
  expect("bias", d.bias, bias, step);
}

TEST(GatedRmsNormBackwardReference, EveryOption) {
  for (const std::int64_t group_size : {2, 4, 12}) {
    for (int bits = 0; bits < 32; ++bits) {
      SCOPED_TRACE(testing::Message() << "group size " << group_size << ", bits " << bits);
      expect_gradients({.group_size = group_size,
                        .norm_before_gate = (bits & 1) != 0,
                        .normalize = (bits & 2) != 0,
                        .gate = (bits & 4) != 0,
                        .weight = (bits & 8) != 0,
                        .bias = (bits & 16) != 0});
    }
  }
}

/// Rows so small that epsilon is a good part of the mean square.
TEST(GatedRmsNormBackwardReference, EpsilonCounts) {
  for (const bool before : {false, true}) expect_gradients({.norm_before_gate = before, .epsilon = 1e-5, .size = 3e-3});
}

}  // namespace
