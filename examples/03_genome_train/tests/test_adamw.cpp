// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "../adamw.hpp"
#include "../schedule.hpp"

namespace {

using genome::Exec;
using genome::train::AdamW;
using genome::train::Array;
using genome::train::Parameter;
using genome::train::Schedule;

Array<float> array_of(const std::vector<float>& values) {
  const Array<float> array("array", values.size());
  const auto host = Kokkos::create_mirror_view(array);
  for (std::size_t i = 0; i < values.size(); ++i) host(i) = values[i];
  Kokkos::deep_copy(array, host);
  return array;
}

float at(const Array<float>& array, std::size_t i) {
  return Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), array)(i);
}

TEST(Schedule, RisesInALineAndFallsToATenth) {
  const Schedule schedule{.peak = 2, .warm_up = 4, .steps = 104};
  EXPECT_DOUBLE_EQ(schedule.rate(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.rate(3), 2);
  EXPECT_DOUBLE_EQ(schedule.rate(4), 2);
  EXPECT_DOUBLE_EQ(schedule.rate(54), 1.1);  // half way
  EXPECT_DOUBLE_EQ(schedule.rate(104), 0.2);
  EXPECT_DOUBLE_EQ(schedule.rate(1000), 0.2);
  for (std::int64_t step = 4; step < 104; ++step) EXPECT_GT(schedule.rate(step), schedule.rate(step + 1));
}

TEST(GradientNorm, IsThatOfAllParametersTogether) {
  const Array<float> some = array_of({3, 0});
  const Array<float> more = array_of(std::vector<float>(10000, 0.04F));
  const std::vector<Parameter<float>> parameters = {{"a", some, some, false}, {"b", more, more, true}};
  EXPECT_NEAR(genome::train::gradient_norm(Exec(), parameters), std::sqrt(9 + 10000 * 0.0016), 1e-6);
}

/// The published formulas in double precision.
struct Reference {
  double value;
  double m = 0;
  double v = 0;
  void step(int t, double gradient, double rate, double decay) {
    m = 0.9 * m + 0.1 * gradient;
    v = 0.95 * v + 0.05 * gradient * gradient;
    const double m_hat = m / (1 - std::pow(0.9, t));
    const double v_hat = v / (1 - std::pow(0.95, t));
    value -= rate * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * value);
  }
};

TEST(AdamW, FollowsThePublishedFormulas) {
  const Array<float> matrix = array_of({0.5F, -2});
  const Array<float> bias = array_of({1.5F});
  const Array<float> matrix_gradient = array_of({0.25F, 4});
  const Array<float> bias_gradient = array_of({-3});
  const std::vector<Parameter<float>> parameters = {{"matrix", matrix, matrix_gradient, true},
                                                    {"bias", bias, bias_gradient, false}};
  const Exec exec;
  AdamW optimiser(exec, parameters, 0.1);
  Reference first{0.5};
  Reference second{-2};
  Reference third{1.5};
  for (int t = 1; t <= 5; ++t) {
    const double rate = 0.01 * t;
    const double scale = t == 3 ? 0.5 : 1;
    optimiser.step(exec, parameters, t, rate, scale);
    first.step(t, 0.25 * scale, rate, 0.1);
    second.step(t, 4 * scale, rate, 0.1);
    third.step(t, -3 * scale, rate, 0);  // does not decay
    exec.fence("test");
    EXPECT_NEAR(at(matrix, 0), first.value, 1e-6);
    EXPECT_NEAR(at(matrix, 1), second.value, 1e-6);
    EXPECT_NEAR(at(bias, 0), third.value, 1e-6);
  }
  EXPECT_NEAR(at(optimiser.first_moment(), 2), third.m, 1e-6);
  EXPECT_NEAR(at(optimiser.second_moment(), 1), second.v, 1e-5);
}

}  // namespace
