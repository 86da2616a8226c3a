// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/mixer/mamba_parameters.hpp>
#include <support/allclose.hpp>

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::MambaConfig;
using krait::Place;
using krait::test::values_of;

MambaConfig small() { return {.d_model = 32, .head_dim = 8, .groups = 4, .d_state = 4, .bias = true}; }

krait::MambaParameters<double> drawn(const MambaConfig& config, Place tensor = {},
                                     const krait::InitializationStyle& style = {}) {
  const Exec exec;
  krait::MambaParameters<double> parameters(exec, config, tensor);
  krait::initialize(exec, config, 5, style, tensor, parameters);
  return parameters;
}

double largest(const std::vector<double>& values) {
  double result = 0;
  for (const double value : values) result = std::max(result, std::abs(value));
  return result;
}

TEST(MambaParameters, ShapesAndCount) {
  const auto parameters = drawn(small());
  EXPECT_EQ(parameters.in_proj_weight.extent(0), 2U * 64 + 2 * 16 + 8);
  EXPECT_EQ(parameters.conv_weight.extent(0), 64U + 32);
  EXPECT_EQ(parameters.D.extent(0), 8U);
  EXPECT_EQ(parameters.D_per_channel.size(), 0U);
  EXPECT_EQ(parameters.count(), 168 * 32 + 168 + 96 * 4 + 96 + 8 + 8 + 8 + 64 + 32 * 64 + 32);
}

TEST(MambaParameters, OptionalOnesAreEmpty) {
  MambaConfig config = small();
  config.bias = config.conv_bias = config.rmsnorm = false;
  config.D_has_hdim = true;
  const auto parameters = drawn(config);
  EXPECT_EQ(parameters.in_proj_bias.size() + parameters.conv_bias.size() + parameters.norm_weight.size(), 0U);
  EXPECT_EQ(parameters.D.size(), 0U);
  EXPECT_EQ(parameters.D_per_channel.extent(1), 8U);
}

TEST(MambaParameters, ValuesFollowTheirFormulas) {
  MambaConfig config = small();
  config.heads = 512;
  const auto parameters = drawn(config);
  for (const double bias : values_of(parameters.dt_bias)) {
    const double dt = std::log1p(std::exp(bias));  // softplus returns the drawn step size
    EXPECT_GE(dt, 0.001 * (1 - 1e-9));
    EXPECT_LE(dt, 0.1 * (1 + 1e-9));
  }
  double low = 1e9;
  double high = 0;
  for (const double A_log : values_of(parameters.A_log)) {
    low = std::min(low, std::exp(A_log));
    high = std::max(high, std::exp(A_log));
  }
  EXPECT_GE(low, 1.0);
  EXPECT_LT(low, 1.3);
  EXPECT_LE(high, 16.0);
  EXPECT_GT(high, 15.7);
  for (const double D : values_of(parameters.D)) EXPECT_EQ(D, 1.0);
  for (const double weight : values_of(parameters.norm_weight)) EXPECT_EQ(weight, 1.0);
  const auto within = [](const std::vector<double>& values, double bound) {
    return largest(values) <= bound && largest(values) > 0.9 * bound;
  };
  EXPECT_TRUE(within(values_of(parameters.conv_weight), 0.5));
  EXPECT_TRUE(within(values_of(parameters.conv_bias), 0.5));
  EXPECT_TRUE(within(values_of(parameters.in_proj_weight), 1 / std::sqrt(32.0)));
  EXPECT_TRUE(within(values_of(parameters.out_proj_weight), 1 / std::sqrt(512.0 * 8)));
}

TEST(MambaParameters, StepSizesHaveAFloor) {
  MambaConfig config = small();
  config.dt_min = 1e-9;
  config.dt_max = 1e-8;
  for (const double bias : values_of(drawn(config).dt_bias)) EXPECT_NEAR(std::log1p(std::exp(bias)), 1e-4, 1e-12);
}

TEST(MambaParameters, ConvInitBoundsTheWeightOnly) {
  MambaConfig config = small();
  config.conv_init = 0.01;
  const auto parameters = drawn(config);
  EXPECT_LE(largest(values_of(parameters.conv_weight)), 0.01);
  EXPECT_GT(largest(values_of(parameters.conv_bias)), 0.1);
}

TEST(MambaParameters, NemoStyle) {
  const auto plain = drawn(small());
  const auto nemo = drawn(small(), {}, {.kind = krait::InitializationStyle::Kind::nemo, .layers = 4});
  const auto A_log = values_of(nemo.A_log);
  for (std::size_t head = 0; head < A_log.size(); ++head)
    EXPECT_EQ(A_log[head], std::log(static_cast<double>(head + 1)));
  auto halved = values_of(plain.out_proj_weight);
  for (double& value : halved) value /= 2;
  EXPECT_TRUE(krait::test::same(values_of(nemo.out_proj_weight), halved));
}

// Section by section, tensor rank r of 2 holds its half of what one rank holds.
TEST(MambaParameters, DoNotDependOnTheTensorRanks) {
  const auto whole = drawn(small());
  const std::vector<std::size_t> sections = {64, 64, 16, 16, 8};
  for (int rank = 0; rank < 2; ++rank) {
    const auto part = drawn(small(), {rank, 2});
    std::size_t whole_row = 0;
    std::size_t part_row = 0;
    for (const std::size_t section : sections) {
      for (std::size_t i = 0; i < section / 2; ++i) {
        const std::size_t row = whole_row + static_cast<std::size_t>(rank) * section / 2 + i;
        ASSERT_EQ(part.in_proj_weight(part_row + i, 7), whole.in_proj_weight(row, 7));
        ASSERT_EQ(part.in_proj_bias(part_row + i), whole.in_proj_bias(row));
      }
      whole_row += section;
      part_row += section / 2;
    }
    for (std::size_t i = 0; i < 32; ++i)
      ASSERT_EQ(part.out_proj_weight(3, i), whole.out_proj_weight(3, static_cast<std::size_t>(rank) * 32 + i));
    ASSERT_EQ(part.conv_weight(32 + 3, 2), whole.conv_weight(64 + static_cast<std::size_t>(rank) * 8 + 3, 2));
    ASSERT_EQ(part.A_log(1), whole.A_log(static_cast<std::size_t>(rank) * 4 + 1));
  }
}

}  // namespace
