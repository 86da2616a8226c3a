// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/tile/tile.hpp>
#include <limits>
#include <vector>
#include "team_sizes.hpp"

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using Member = Kokkos::TeamPolicy<Exec>::member_type;

TEST(TileVectorMath, SoftplusKeepsItsRelativeAccuracyBelowZero) {
  for (const double v : {-100.0, -40.0, -20.0, -16.6, -1.0, 0.0, 1.0, 19.9, 20.0, 20.1, 90.0}) {
    const double want = std::log1p(std::exp(v));
    if (v > -87) {
      EXPECT_NEAR(krait::tile::softplus(static_cast<float>(v)) / std::log1p(std::exp(double(float(v)))), 1.0, 1e-6)
          << v;
    }
    EXPECT_NEAR(krait::tile::softplus(v) / want, 1.0, v > 20 ? 1e-9 : 1e-14) << v;
  }
}

TEST(TileVectorMath, SigmoidAndSiluHaveNoOverflow) {
  constexpr float huge = std::numeric_limits<float>::max();
  EXPECT_EQ(krait::tile::sigmoid(huge), 1.0F);
  EXPECT_EQ(krait::tile::sigmoid(-huge), 0.0F);
  EXPECT_EQ(krait::tile::silu(huge), huge);
  EXPECT_EQ(krait::tile::silu(-huge), 0.0F);
  for (const double v : {-30.0, -3.0, -0.1, 0.0, 0.1, 3.0, 30.0}) {
    EXPECT_NEAR(krait::tile::silu(v), v / (1 + std::exp(-v)), 1e-15 * std::abs(v));
  }
}

TEST(TileVectorMath, ActivationsOfAGpuAgreeWithTheOthers) {
  namespace cuda = krait::tile::cuda;
  for (int i = -40000; i <= 40000; ++i) {
    const auto v = static_cast<float>(i * 1e-3);
    const double sigmoid = 1 / (1 + std::exp(-static_cast<double>(v)));
    ASSERT_NEAR(cuda::sigmoid(v), sigmoid, 3e-7) << v;
    ASSERT_NEAR(cuda::silu(v), v * sigmoid, 3e-7 * (1 + std::abs(v))) << v;
    ASSERT_NEAR(cuda::silu_derivative(v), sigmoid * (1 + v * (1 - sigmoid)), 6e-7) << v;
  }
  constexpr float huge = std::numeric_limits<float>::max();
  EXPECT_EQ(cuda::silu(huge), huge);
  EXPECT_EQ(cuda::silu(-huge), 0.0F);
  EXPECT_EQ(cuda::silu_derivative(huge), 1.0F);
  EXPECT_EQ(cuda::silu_derivative(-huge), 0.0F);
  EXPECT_TRUE(std::isnan(cuda::silu(std::nanf(""))));
  EXPECT_TRUE(std::isnan(cuda::silu_derivative(std::nanf(""))));
}

TEST(TileVectorMath, DecayIsAtMostOneAndNeverDenormal) {
  EXPECT_EQ(krait::tile::decay(1e-6F), 1.0F);
  EXPECT_EQ(krait::tile::decay(-87.5F), 0.0F);
  EXPECT_EQ(krait::tile::decay(-1e30F), 0.0F);
  EXPECT_TRUE(std::isnormal(krait::tile::decay(-86.9F)));
  EXPECT_TRUE(std::isnormal(krait::tile::decay(-707.0)));
  EXPECT_EQ(krait::tile::decay(-709.0), 0.0);
}

TEST(TileVectorMath, DecayKeepsItsRelativeAccuracyAndPassesNanOn) {
  for (int i = 0; i <= 870000; ++i) {
    const auto v = static_cast<float>(-i * 1e-4);
    ASSERT_NEAR(krait::tile::decay(v) / std::exp(static_cast<double>(v)), 1.0, 2.4e-7) << v;
  }
  EXPECT_EQ(krait::tile::decay(0.0F), 1.0F);
  EXPECT_EQ(krait::tile::decay(-std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_TRUE(std::isnan(krait::tile::decay(std::nanf("0x123"))));
  EXPECT_TRUE(std::isnan(krait::tile::decay(std::nan(""))));
  EXPECT_TRUE(std::isnan(krait::tile::sigmoid(std::nanf(""))));
}

constexpr int count = 37;

struct Weights {
  const float* a;
  const float* scale;
  float* high;
  float* low;
  krait::tile::Matrix<float> w;

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    krait::tile::cumulative_sum(team, count, a, high, low);
    team.team_barrier();
    krait::tile::decay_weights(team, count, high, low, scale, {w.data, w.row, w.column}, w);
  }
};

TEST(TileVectorMath, DecayWeightsStayAccurateAfterAFastToken) {
  Kokkos::View<float*, Exec> a("a", count), scale("scale", count), high("high", count), low("low", count);
  Kokkos::View<float**, Kokkos::LayoutRight, Exec> w("w", count, count);
  const auto decays = Kokkos::create_mirror_view(a);
  const auto scales = Kokkos::create_mirror_view(scale);
  for (int i = 0; i < count; ++i) {
    decays(i) = i % 9 == 4 ? -5000.0F : -1e-3F * static_cast<float>(i % 5);
    scales(i) = 0.25F * static_cast<float>(1 + i % 3);
  }
  Kokkos::deep_copy(a, decays);
  Kokkos::deep_copy(scale, scales);
  const Weights weights{a.data(), scale.data(), high.data(), low.data(), {w.data(), count, 1}};
  for (const int team : krait_test::team_sizes(weights)) {
    const auto products = Kokkos::create_mirror_view(w);
    for (int m = 0; m < count; ++m) {
      // Above the diagonal lies what the caller never computed.
      for (int k = 0; k < count; ++k) products(m, k) = k <= m ? 3.0F : std::numeric_limits<float>::quiet_NaN();
    }
    Kokkos::deep_copy(w, products);
    Kokkos::parallel_for("krait::test::weights", Kokkos::TeamPolicy<Exec>(1, team), weights);
    const auto got = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), w);
    for (int m = 0; m < count; ++m) {
      double sum = 0;
      for (int k = m; k >= 0; --k) {
        const double want = 3.0 * std::exp(sum) * double(scales(k));
        ASSERT_NEAR(double(got(m, k)), want, 1e-6 * want + 1e-30) << m << ' ' << k << ", team of " << team;
        sum += double(decays(k));
      }
      for (int k = m + 1; k < count; ++k) ASSERT_EQ(got(m, k), 0.0F);
    }
  }
}

}  // namespace
