// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <krait/core/error.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/reference/gated_rms_norm.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::random_strided_view;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// Owns what the arguments point to.
template <class T>
struct Norm {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> x;
  krait::test::StridedView<T> z;
  krait::test::StridedView<T> out;
  Kokkos::View<A*> weight;
  Kokkos::View<A*> bias;
  std::int64_t group_size = 0;
  bool norm_before_gate = false;
  bool normalize = true;

  Norm(std::int64_t rows, std::int64_t tokens, std::int64_t features,
       Arrangement arrangement = Arrangement::features_last)
      : x(random_strided_view<T>(arrangement, 1, rows, tokens, features)),
        z(random_strided_view<T>(arrangement, 2, rows, tokens, features)),
        out(krait::test::strided_view<T>(arrangement, rows, tokens, features)),
        weight(krait::test::random_view<Kokkos::View<A*>>(3, features)),
        bias(krait::test::random_view<Kokkos::View<A*>>(4, features)) {}

  [[nodiscard]] krait::GatedRmsNormArguments<T> arguments() const {
    krait::GatedRmsNormArguments<T> result;
    result.x = x;
    result.z = z;
    result.weight = weight;
    result.bias = bias;
    result.out = out;
    result.group_size = group_size;
    result.norm_before_gate = norm_before_gate;
    result.normalize = normalize;
    return result;
  }

  void run() const { krait::gated_rms_norm<T>(Exec(), arguments()); }

  [[nodiscard]] std::vector<double> reference() const {
    const auto xs = values_of(x);
    const auto zs = values_of(z);
    const auto w = values_of(weight);
    const auto b = values_of(bias);
    const auto features = static_cast<std::int64_t>(x.extent(2));
    return krait::reference::GatedRmsNorm{
        features, group_size == 0 ? features : group_size, norm_before_gate, normalize, 1e-5, xs, zs, w, b}();
  }

  void expect_reference() const {
    const auto want = reference();  // before the call: out may be x
    run();
    EXPECT_TRUE(all_close(out, want, krait::test::tolerance<T>()));
  }
};

template <class T>
class GatedRmsNorm : public testing::Test {};
TYPED_TEST_SUITE(GatedRmsNorm, Scalars);

TYPED_TEST(GatedRmsNorm, BothOrdersGroupSizesAndArrangementsMatchTheReference) {
  for (const bool before : {false, true}) {
    for (const std::int64_t group_size : {0, 1, 5, 15, 45, 90}) {
      for (const Arrangement arrangement : krait::test::all_arrangements) {
        SCOPED_TRACE(testing::Message() << before << ' ' << group_size << ' ' << static_cast<int>(arrangement));
        Norm<TypeParam> norm(2, 7, 90, arrangement);
        norm.group_size = group_size;
        norm.norm_before_gate = before;
        norm.expect_reference();
      }
    }
    for (const std::int64_t group_size : {0, 8, 24, 32, 48}) {
      for (const Arrangement arrangement : krait::test::all_arrangements) {
        SCOPED_TRACE(testing::Message() << before << ' ' << group_size << ' ' << static_cast<int>(arrangement));
        Norm<TypeParam> norm(2, 3, 96, arrangement);
        norm.group_size = group_size;
        norm.norm_before_gate = before;
        norm.expect_reference();
      }
    }
  }
}

/// So many short groups that not all of a token are worked on together.
TYPED_TEST(GatedRmsNorm, ManyGroups) {
  for (const std::int64_t group_size : {1, 10, 33, 1100}) {
    for (const bool before : {false, true}) {
      SCOPED_TRACE(testing::Message() << before << ' ' << group_size);
      Norm<TypeParam> norm(2, 3, 3300);
      norm.group_size = group_size;
      norm.norm_before_gate = before;
      norm.expect_reference();
    }
  }
}

TYPED_TEST(GatedRmsNorm, GateBiasAndNormMayBeMissing) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    Norm<TypeParam> no_gate(1, 5, 24, arrangement);
    no_gate.z = {};
    no_gate.bias = {};
    no_gate.expect_reference();
    for (const bool before : {false, true}) {
      Norm<TypeParam> gate_only(1, 5, 24, arrangement);
      gate_only.weight = {};
      gate_only.bias = {};
      gate_only.normalize = false;
      gate_only.norm_before_gate = before;
      gate_only.expect_reference();
    }
  }
}

TYPED_TEST(GatedRmsNorm, StoresTheReciprocalRootOfEachGroup) {
  using A = krait::accumulator_t<TypeParam>;
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    for (const bool before : {false, true}) {
      Norm<TypeParam> norm(2, 5, 24, arrangement);
      norm.group_size = 8;
      norm.norm_before_gate = before;
      const auto rstd = krait::test::poisoned_view<Kokkos::View<A***>>(2, 5, 3);
      auto arguments = norm.arguments();
      arguments.rstd = rstd;
      krait::gated_rms_norm<TypeParam>(Exec(), arguments);
      const auto x = values_of(norm.x);
      const auto z = values_of(norm.z);
      std::vector<double> want;
      for (std::size_t group = 0; group < 2 * 5 * 3; ++group) {
        double squares = 0;
        for (std::size_t i = 8 * group; i < 8 * group + 8; ++i) {
          const double v = before ? x[i] : x[i] * z[i] / (1 + std::exp(-z[i]));
          squares += v * v;
        }
        want.push_back(1 / std::sqrt(squares / 8 + 1e-5));
      }
      EXPECT_TRUE(all_close(rstd, want, krait::test::tolerance<A>()));
    }
  }
}

TYPED_TEST(GatedRmsNorm, WorksInPlace) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const bool before : {false, true}) {
      for (const std::int64_t features : {40, 16400}) {
        for (const bool over_gate : {false, true}) {
          Norm<TypeParam> norm(2, 3, features, arrangement);
          norm.group_size = features / 2;
          norm.norm_before_gate = before;
          norm.run();
          const auto want = values_of(norm.out);
          norm.out = over_gate ? norm.z : norm.x;
          norm.run();
          EXPECT_TRUE(all_close(norm.out, want, krait::test::exact()));
        }
      }
    }
  }
}

TYPED_TEST(GatedRmsNorm, GroupsLongerThanTheBlockOfTheHostKernel) {
  for (const std::int64_t features : {8191, 8192, 8193, 20000}) {
    for (const bool before : {false, true}) {
      Norm<TypeParam> norm(1, 2, features);
      norm.norm_before_gate = before;
      norm.expect_reference();
      if (!before) {
        norm.z = {};
        norm.expect_reference();
      }
    }
  }
}

TYPED_TEST(GatedRmsNorm, EmptyTensors) {
  Norm<TypeParam>(0, 3, 4).run();
  Norm<TypeParam>(2, 0, 4).run();
  Norm<TypeParam>(2, 3, 0).run();
}

TYPED_TEST(GatedRmsNorm, OneGroupDoesNotSeeAnother) {
  Norm<TypeParam> norm(1, 4, 30);
  norm.group_size = 10;
  norm.run();
  auto want = values_of(norm.out);
  auto inputs = values_of(norm.x);
  inputs[2 * 30 + 15] = std::numeric_limits<double>::quiet_NaN();
  krait::test::assign(norm.x, inputs);
  for (std::size_t i = 2 * 30 + 10; i < 2 * 30 + 20; ++i) want[i] = std::numeric_limits<double>::quiet_NaN();
  norm.run();
  EXPECT_TRUE(all_close(norm.out, want, krait::test::exact()));
}

TYPED_TEST(GatedRmsNorm, LargeGatesAndZerosRaiseNoFloatingPointException) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    for (const bool before : {false, true}) {
      Norm<TypeParam> norm(1, 6, 50, arrangement);
      norm.norm_before_gate = before;
      krait::test::fill_normal(norm.z, 6, 0, 500);
      norm.expect_reference();
      EXPECT_EQ(krait::test::raised_exceptions([&] { norm.run(); }), "");
      krait::test::fill(norm.x, 0);
      EXPECT_EQ(krait::test::raised_exceptions([&] { norm.run(); }), "");
    }
  }
}

TEST(GatedRmsNormOffsets, RowsMayLieFurtherApartThanThirtyTwoBits) {
  using T = krait::bfloat16;
  constexpr std::size_t pitch = (std::size_t{1} << 31) + 64;
  const Kokkos::View<T*, Exec> memory(Kokkos::view_alloc("krait::test::far", Kokkos::WithoutInitializing), pitch + 64);
  for (const bool unit : {true, false}) {
    const auto layout = unit ? Kokkos::LayoutStride(2, pitch, 4, 8, 8, 1) : Kokkos::LayoutStride(2, pitch, 4, 1, 8, 4);
    Norm<T> norm(2, 4, 8);
    norm.run();
    const auto near = values_of(norm.out);
    const auto inputs = values_of(norm.x);
    norm.x = norm.out = krait::test::StridedView<T>(memory.data(), layout);
    krait::test::assign(norm.x, inputs);
    norm.run();
    EXPECT_TRUE(all_close(norm.out, near, krait::test::tolerance<T>()));
  }
}

template <class E, class Change>
void refused(const char* text, const Change& change) {
  auto arguments = Norm<float>(2, 5, 12).arguments();
  change(arguments);
  EXPECT_THAT([&] { krait::gated_rms_norm<float>(Exec(), arguments); }, ThrowsMessage<E>(HasSubstr(text)));
}

TEST(GatedRmsNormErrors, EveryArgumentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 12);
  const Kokkos::View<float*> four("krait::test::four", 4);
  refused<krait::ShapeError>("krait::gated_rms_norm: out is (2, 6, 12), expected (2, 5, 12)",
                             [&](auto& a) { a.out = odd; });
  refused<krait::ShapeError>("krait::gated_rms_norm: z is (2, 6, 12), expected (2, 5, 12)",
                             [&](auto& a) { a.z = odd; });
  refused<krait::ShapeError>("krait::gated_rms_norm: weight is (4), expected (12)", [&](auto& a) { a.weight = four; });
  refused<krait::ShapeError>("krait::gated_rms_norm: bias is (4), expected (12)", [&](auto& a) { a.bias = four; });
  refused<krait::ShapeError>("krait::gated_rms_norm: rstd is (2, 6, 12), expected (2, 5, 1)",
                             [&](auto& a) { a.rstd = odd; });
  refused<krait::ConfigError>("krait::gated_rms_norm: group_size is 5, expected a divisor of the 12 features",
                              [&](auto& a) { a.group_size = 5; });
  refused<krait::ConfigError>("krait::gated_rms_norm: group_size is -3", [&](auto& a) { a.group_size = -3; });
  refused<krait::ConfigError>("krait::gated_rms_norm: weight is absent, expected one of extent 12",
                              [&](auto& a) { a.weight = {}; });
  refused<krait::ConfigError>("krait::gated_rms_norm: epsilon is -1, expected at least 0",
                              [&](auto& a) { a.epsilon = -1; });
}

}  // namespace
