// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/reference/gated_rms_norm_backward.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>
#include <support/finite_differences.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::random_strided_view;
using krait::test::random_view;
using krait::test::same;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// Owns what the arguments point to. Gradients of parameters begin at what others have added.
template <class T>
struct NormBackward {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> x, z, dout, dx, dz, out;
  Kokkos::View<A*> weight, bias, dweight, dbias;
  Kokkos::View<A***> rstd;
  Kokkos::View<std::byte*> workspace;
  std::vector<double> dweight_before, dbias_before;
  std::int64_t group_size = 0;
  bool norm_before_gate = false;
  bool normalize = true;

  NormBackward(std::int64_t rows, std::int64_t tokens, std::int64_t features,
               Arrangement arrangement = Arrangement::features_last)
      : x(random_strided_view<T>(arrangement, 1, rows, tokens, features)),
        z(random_strided_view<T>(arrangement, 2, rows, tokens, features)),
        dout(random_strided_view<T>(arrangement, 3, rows, tokens, features)),
        dx(krait::test::strided_view<T>(arrangement, rows, tokens, features)),
        dz(krait::test::strided_view<T>(arrangement, rows, tokens, features)),
        weight(random_view<Kokkos::View<A*>>(4, features)),
        bias(random_view<Kokkos::View<A*>>(5, features)),
        dweight(random_view<Kokkos::View<A*>>(6, features)),
        dbias(random_view<Kokkos::View<A*>>(7, features)),
        workspace(Kokkos::view_alloc("krait::test::workspace", Kokkos::WithoutInitializing),
                  krait::gated_rms_norm_backward_workspace_bytes<T, Exec>(rows, tokens, features)),
        dweight_before(values_of(dweight)),
        dbias_before(values_of(dbias)) {}

  [[nodiscard]] krait::GatedRmsNormBackwardArguments<T> arguments() const {
    krait::GatedRmsNormBackwardArguments<T> result;
    result.x = x;
    result.z = z;
    result.weight = weight;
    result.bias = bias;
    result.group_size = group_size;
    result.norm_before_gate = norm_before_gate;
    result.normalize = normalize;
    result.rstd = rstd;
    result.dout = dout;
    result.dx = dx;
    result.dz = dz;
    result.dweight = dweight;
    result.dbias = dbias;
    result.out = out;
    result.workspace = workspace;
    return result;
  }

  [[nodiscard]] krait::GatedRmsNormArguments<T> forward_arguments() const {
    krait::GatedRmsNormArguments<T> result;
    result.x = x;
    result.z = z;
    result.weight = weight;
    result.bias = bias;
    result.group_size = group_size;
    result.norm_before_gate = norm_before_gate;
    result.normalize = normalize;
    return result;
  }

  void without_gate() { z = dz = {}; }
  void without_weight() { weight = dweight = {}; }
  void without_bias() { bias = dbias = {}; }

  void run(const Exec& exec = Exec()) const {
    if (dweight.data() != nullptr) krait::test::assign(dweight, dweight_before);
    if (dbias.data() != nullptr) krait::test::assign(dbias, dbias_before);
    krait::gated_rms_norm_backward<T>(exec, arguments());
  }

  /// What the call adds to the gradient of a parameter.
  template <class View>
  [[nodiscard]] static std::vector<double> added(const View& gradient, const std::vector<double>& before) {
    auto values = values_of(gradient);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= before[i];
    return values;
  }

  void expect_reference() const {
    const auto xs = values_of(x);
    const auto zs = values_of(z);
    const auto w = values_of(weight);
    const auto b = values_of(bias);
    const auto features = static_cast<std::int64_t>(x.extent(2));
    const krait::reference::GatedRmsNorm forward{
        features, group_size == 0 ? features : group_size, norm_before_gate, normalize, 1e-5, xs, zs, w, b};
    const auto want = krait::reference::gated_rms_norm_backward(forward, values_of(dout));  // before: dx may be dout
    run();
    EXPECT_TRUE(all_close(dx, want.x, krait::test::tolerance<T>()));
    EXPECT_TRUE(all_close(dz, want.z, krait::test::tolerance<T>()));
    auto bound = krait::test::tolerance<A>();
    // The sum is formed beside what was there before; subtracting that again loses digits of a small sum.
    bound.absolute = std::is_same_v<A, double> ? 1e-15 : 1e-6;
    if constexpr (std::is_same_v<A, double>) bound.nmse = 1e-22;
    if (dweight.data() != nullptr) {
      EXPECT_TRUE(all_close(added(dweight, dweight_before), want.weight, bound));
    }
    if (dbias.data() != nullptr) {
      EXPECT_TRUE(all_close(added(dbias, dbias_before), want.bias, bound));
    }
    if (out.data() != nullptr) {
      EXPECT_TRUE(all_close(out, forward(), krait::test::tolerance<T>()));
    }
  }
};

template <class T>
class GatedRmsNormBackward : public testing::Test {};
TYPED_TEST_SUITE(GatedRmsNormBackward, Scalars);

TYPED_TEST(GatedRmsNormBackward, BothOrdersGroupSizesAndArrangementsMatchTheReference) {
  for (const bool before : {false, true}) {
    for (const std::int64_t group_size : {0, 1, 5, 15, 45, 90}) {
      for (const Arrangement arrangement : krait::test::all_arrangements) {
        SCOPED_TRACE(testing::Message() << before << ' ' << group_size << ' ' << static_cast<int>(arrangement));
        NormBackward<TypeParam> norm(2, 7, 90, arrangement);
        norm.group_size = group_size;
        norm.norm_before_gate = before;
        norm.expect_reference();
      }
    }
    for (const std::int64_t group_size : {0, 8, 24, 48}) {
      for (const Arrangement arrangement : krait::test::all_arrangements) {
        SCOPED_TRACE(testing::Message() << before << ' ' << group_size << ' ' << static_cast<int>(arrangement));
        NormBackward<TypeParam> norm(2, 21, 96, arrangement);
        norm.group_size = group_size;
        norm.norm_before_gate = before;
        norm.expect_reference();
      }
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, RootsAndOutputOfTheForward) {
  using A = krait::accumulator_t<TypeParam>;
  for (const bool before : {false, true}) {
    for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
      NormBackward<TypeParam> norm(2, 7, 90, arrangement);
      norm.group_size = 30;
      norm.norm_before_gate = before;
      norm.rstd = krait::test::poisoned_view<Kokkos::View<A***>>(2, 7, 3);
      auto forward = norm.forward_arguments();
      const auto out = krait::test::strided_view<TypeParam>(arrangement, 2, 7, 90);
      forward.out = out;
      forward.rstd = norm.rstd;
      krait::gated_rms_norm<TypeParam>(Exec(), forward);
      // Used as they are: with roots of a wrong size the gradients would be wrong.
      norm.out = krait::test::strided_view<TypeParam>(arrangement, 2, 7, 90);
      norm.expect_reference();
      EXPECT_TRUE(all_close(norm.out, out, krait::test::tolerance<TypeParam>()));
      auto doubled = values_of(norm.rstd);
      const auto gradients = values_of(norm.dx);
      for (double& value : doubled) value *= 2;
      krait::test::assign(norm.rstd, doubled);
      norm.run();
      EXPECT_FALSE(all_close(norm.dx, gradients, krait::test::tolerance<TypeParam>()));
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, GateBiasAndNormMayBeMissing) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    NormBackward<TypeParam> no_gate(1, 5, 24, arrangement);
    no_gate.without_gate();
    no_gate.without_bias();
    no_gate.expect_reference();
    for (const bool before : {false, true}) {
      NormBackward<TypeParam> gate_only(1, 5, 24, arrangement);
      gate_only.without_weight();
      gate_only.without_bias();
      gate_only.normalize = false;
      gate_only.norm_before_gate = before;
      gate_only.expect_reference();
      NormBackward<TypeParam> scaled(1, 5, 24, arrangement);
      scaled.normalize = false;
      scaled.norm_before_gate = before;
      scaled.expect_reference();
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, GradientsOfParametersAndTheWorkspaceMayBeMissing) {
  const NormBackward<TypeParam> norm(2, 5, 24);
  norm.run();
  const auto dx = values_of(norm.dx);
  auto arguments = norm.arguments();
  arguments.dweight = {};
  arguments.dbias = {};
  arguments.workspace = {};
  krait::test::poison(norm.dx);
  krait::gated_rms_norm_backward<TypeParam>(Exec(), arguments);
  EXPECT_TRUE(all_close(norm.dx, dx, krait::test::exact()));
}

TYPED_TEST(GatedRmsNormBackward, WorksInPlace) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const bool before : {false, true}) {
      NormBackward<TypeParam> norm(2, 3, 40, arrangement);
      norm.group_size = 20;
      norm.norm_before_gate = before;
      norm.run();
      const auto dx = norm.dx;
      const auto dz = values_of(norm.dz);
      const auto dweight = values_of(norm.dweight);
      norm.dx = norm.dout;
      norm.run();
      EXPECT_TRUE(same(norm.dx, dx));
      EXPECT_TRUE(all_close(norm.dz, dz, krait::test::exact()));
      EXPECT_TRUE(all_close(norm.dweight, dweight, krait::test::exact()));
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, GroupsLongerThanTheBlockOfTheHostKernel) {
  for (const std::int64_t features : {8191, 8192, 8193, 20000}) {
    for (const bool before : {false, true}) {
      NormBackward<TypeParam> norm(1, 2, features);
      norm.norm_before_gate = before;
      norm.out = krait::test::strided_view<TypeParam>(Arrangement::features_last, 1, 2, features);
      norm.expect_reference();
      if (!before) {
        norm.without_gate();
        norm.expect_reference();
      }
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, ParametersMayHaveAnyStride) {
  using A = krait::accumulator_t<TypeParam>;
  const NormBackward<TypeParam> dense(2, 5, 24);
  dense.run();
  const auto pairs = krait::test::poisoned_view<Kokkos::View<A**, Kokkos::LayoutRight>>(24, 4);
  const auto column = [&](std::size_t i) { return Kokkos::subview(pairs, Kokkos::ALL, i); };
  krait::test::assign(column(0), values_of(dense.weight));
  krait::test::assign(column(1), values_of(dense.bias));
  krait::test::assign(column(2), dense.dweight_before);
  krait::test::assign(column(3), dense.dbias_before);
  auto arguments = dense.arguments();
  arguments.weight = column(0);
  arguments.bias = column(1);
  arguments.dweight = column(2);
  arguments.dbias = column(3);
  const auto dx = values_of(dense.dx);
  krait::gated_rms_norm_backward<TypeParam>(Exec(), arguments);
  EXPECT_TRUE(all_close(dense.dx, dx, krait::test::tolerance<TypeParam>()));
  EXPECT_TRUE(all_close(column(2), values_of(dense.dweight), krait::test::tolerance<A>()));
  EXPECT_TRUE(all_close(column(3), values_of(dense.dbias), krait::test::tolerance<A>()));
}

TYPED_TEST(GatedRmsNormBackward, TokensAroundTheBlocks) {
  for (const std::int64_t tokens : {1, 15, 16, 17, 31, 32, 33, 65}) {
    NormBackward<TypeParam> norm(2, tokens, 12);
    norm.group_size = 4;
    norm.expect_reference();
  }
}

TYPED_TEST(GatedRmsNormBackward, EmptyTensors) {
  NormBackward<TypeParam>(0, 3, 4).run();
  NormBackward<TypeParam>(2, 0, 4).run();
  NormBackward<TypeParam>(2, 3, 0).run();
}

TYPED_TEST(GatedRmsNormBackward, OneGroupDoesNotSeeAnother) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    NormBackward<TypeParam> norm(1, 4, 30, arrangement);
    norm.group_size = 10;
    norm.run();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    auto want = values_of(norm.dx);
    auto inputs = values_of(norm.x);
    inputs[2 * 30 + 15] = nan;
    krait::test::assign(norm.x, inputs);
    for (std::size_t i = 2 * 30 + 10; i < 2 * 30 + 20; ++i) want[i] = nan;
    norm.run();
    EXPECT_TRUE(all_close(norm.dx, want, krait::test::exact()));
  }
}

TYPED_TEST(GatedRmsNormBackward, LargeGatesAndZerosRaiseNoFloatingPointException) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    for (const bool before : {false, true}) {
      NormBackward<TypeParam> norm(1, 6, 50, arrangement);
      norm.norm_before_gate = before;
      krait::test::fill_normal(norm.z, 6, 0, 500);
      norm.expect_reference();
      EXPECT_EQ(krait::test::raised_exceptions([&] { norm.run(); }), "");
      krait::test::fill(norm.x, 0);
      EXPECT_EQ(krait::test::raised_exceptions([&] { norm.run(); }), "");
    }
  }
}

TYPED_TEST(GatedRmsNormBackward, SameBitsInManyCallsOnAnyNumberOfThreads) {
  const auto threads = Kokkos::Experimental::partition_space(Exec(), 1, 1);
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    NormBackward<TypeParam> norm(2, 300, 150, arrangement);
    norm.group_size = 75;
    norm.run();
    const std::vector want{values_of(norm.dx), values_of(norm.dz), values_of(norm.dweight), values_of(norm.dbias)};
    for (int repeat = 0; repeat < 20; ++repeat) {
      norm.run(repeat % 2 == 0 ? Exec() : threads[0]);
      EXPECT_EQ(values_of(norm.dx), want[0]);
      EXPECT_EQ(values_of(norm.dz), want[1]);
      EXPECT_EQ(values_of(norm.dweight), want[2]);
      EXPECT_EQ(values_of(norm.dbias), want[3]);
    }
  }
}

TEST(GatedRmsNormBackwardByDifferences, EveryGradientOfTheForwardKernel) {
  for (const bool before : {false, true}) {
    for (const std::int64_t group_size : {3, 6}) {
      for (const bool normalize : {true, false}) {
        SCOPED_TRACE(testing::Message() << before << ' ' << group_size << ' ' << normalize);
        NormBackward<double> norm(2, 2, 6);
        norm.group_size = group_size;
        norm.norm_before_gate = before;
        norm.normalize = normalize;
        norm.run();
        auto forward = norm.forward_arguments();
        const auto out = krait::test::strided_view<double>(Arrangement::features_last, 2, 2, 6);
        forward.out = out;
        const auto dout = values_of(norm.dout);
        const auto loss = [&] {
          krait::gated_rms_norm<double>(Exec(), forward);
          return krait::test::weighted_sum(dout, values_of(out));
        };
        const auto differences = [&](const auto& view) { return krait::test::finite_differences(view, loss); };
        const auto bound = krait::test::by_differences();
        EXPECT_TRUE(all_close(norm.dx, differences(norm.x), bound));
        EXPECT_TRUE(all_close(norm.dz, differences(norm.z), bound));
        EXPECT_TRUE(all_close(norm.added(norm.dweight, norm.dweight_before), differences(norm.weight), bound));
        EXPECT_TRUE(all_close(norm.added(norm.dbias, norm.dbias_before), differences(norm.bias), bound));
      }
    }
  }
}

TEST(GatedRmsNormBackwardOffsets, RowsMayLieFurtherApartThanThirtyTwoBits) {
  using T = krait::bfloat16;
  constexpr std::size_t pitch = (std::size_t{1} << 31) + 64;
  const Kokkos::View<T*, Exec> memory(Kokkos::view_alloc("krait::test::far", Kokkos::WithoutInitializing), pitch + 64);
  for (const bool unit : {true, false}) {
    const auto layout = unit ? Kokkos::LayoutStride(2, pitch, 4, 8, 8, 1) : Kokkos::LayoutStride(2, pitch, 4, 1, 8, 4);
    const krait::test::StridedView<T> far(memory.data(), layout);
    NormBackward<T> norm(2, 4, 8, unit ? Arrangement::features_last : Arrangement::features_first);
    norm.run();
    const auto want = values_of(norm.dx);
    const auto near = norm.dx;
    for (auto* const tensor : {&norm.x, &norm.z, &norm.dout, &norm.dx}) {
      const auto before = *tensor;
      krait::test::assign(far, values_of(before));
      *tensor = far;
      krait::test::poison(near);
      norm.run();
      EXPECT_TRUE(all_close(norm.dx, want, krait::test::exact()));
      *tensor = before;
    }
  }
}

template <class E, class Change>
void refused(const char* text, const Change& change) {
  const NormBackward<float> norm(2, 5, 12);
  auto arguments = norm.arguments();
  change(arguments);
  EXPECT_THAT([&] { krait::gated_rms_norm_backward<float>(Exec(), arguments); }, ThrowsMessage<E>(HasSubstr(text)));
}

TEST(GatedRmsNormBackwardErrors, EveryArgumentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 12);
  const Kokkos::View<float*> four("krait::test::four", 4);
  const Kokkos::View<std::byte*> bytes("krait::test::bytes", 95);
  const auto shape = [](const char* text, const auto& change) { refused<krait::ShapeError>(text, change); };
  const auto config = [](const char* text, const auto& change) { refused<krait::ConfigError>(text, change); };
  shape("krait::gated_rms_norm_backward: z is (2, 6, 12), expected (2, 5, 12)", [&](auto& a) { a.z = odd; });
  shape("weight is (4), expected (12)", [&](auto& a) { a.weight = four; });
  shape("bias is (4), expected (12)", [&](auto& a) { a.bias = four; });
  shape("rstd is (2, 6, 12), expected (2, 5, 1)", [&](auto& a) { a.rstd = odd; });
  shape("dout is (2, 6, 12), expected (2, 5, 12)", [&](auto& a) { a.dout = odd; });
  shape("dx is (2, 6, 12), expected (2, 5, 12)", [&](auto& a) { a.dx = odd; });
  shape("dz is (2, 6, 12), expected (2, 5, 12)", [&](auto& a) { a.dz = odd; });
  shape("out is (2, 6, 12), expected (2, 5, 12)", [&](auto& a) { a.out = odd; });
  shape("dweight is (4), expected (12)", [&](auto& a) { a.dweight = four; });
  shape("dbias is (4), expected (12)", [&](auto& a) { a.dbias = four; });
  config("krait::gated_rms_norm_backward: group_size is 5, expected a divisor of the 12 features",
         [&](auto& a) { a.group_size = 5; });
  config("weight is absent, expected one of extent 12", [&](auto& a) { a.weight = {}; });
  config("epsilon is -1, expected at least 0", [&](auto& a) { a.epsilon = -1; });
  config("dz is given and z is absent, expected both or neither", [&](auto& a) { a.z = {}; });
  config("dz is absent and z is given, expected both or neither", [&](auto& a) { a.dz = {}; });
  config("dbias is given, expected it only with bias", [&](auto& a) { a.bias = {}; });
  config("dweight is given, expected it only with weight", [&](auto& a) {
    a.weight = {};
    a.normalize = false;
  });
  refused<krait::CapacityError>("krait::gated_rms_norm_backward: workspace has 95 bytes, expected 96",
                                [&](auto& a) { a.workspace = bytes; });
}

}  // namespace
