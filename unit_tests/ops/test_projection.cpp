// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/config.hpp>
#include <krait/core/error.hpp>
#include <krait/ops/projection.hpp>
#include <krait/reference/projection.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>
#include <support/callback_recorder.hpp>
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
struct Projection {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> in;
  krait::test::StridedView<T> out;
  Kokkos::View<T**, Kokkos::LayoutStride> weight;
  Kokkos::View<A*> bias;

  Projection(std::int64_t rows, std::int64_t tokens, std::int64_t inputs, std::int64_t outputs,
             Arrangement arrangement = Arrangement::features_last)
      : in(random_strided_view<T>(arrangement, 1, rows, tokens, inputs)),
        out(krait::test::strided_view<T>(arrangement, rows, tokens, outputs)),
        weight(Kokkos::subview(krait::test::strided_view<T>(arrangement, 1, outputs, inputs), 0, Kokkos::ALL,
                               Kokkos::ALL)),
        bias(krait::test::random_view<Kokkos::View<A*>>(3, outputs)) {
    // Keeps the results of order 1, as a layer's initialisation does.
    krait::test::fill_normal(weight, 2, 0, 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(inputs, 1))));
  }

  [[nodiscard]] krait::ProjectionArguments<T> arguments() const {
    krait::ProjectionArguments<T> result;
    result.in = in;
    result.weight = weight;
    result.bias = bias;
    result.out = out;
    return result;
  }

  void run() const { krait::projection<T>(Exec(), arguments()); }

  void expect_reference() const {
    run();
    const auto want =
        krait::reference::projection(static_cast<std::int64_t>(in.extent(2)), static_cast<std::int64_t>(out.extent(2)),
                                     values_of(in), values_of(weight), values_of(bias));
    EXPECT_TRUE(all_close(out, want, krait::test::tolerance<T>()));
  }
};

template <class T>
class ProjectionOf : public testing::Test {};
TYPED_TEST_SUITE(ProjectionOf, Scalars);

TYPED_TEST(ProjectionOf, OddShapesMatchTheReference) {
  for (const std::int64_t tokens : {1, 3, 63, 129}) {
    for (const std::int64_t inputs : {1, 5, 127, 130, 300}) {
      for (const std::int64_t outputs : {1, 31, 33, 70}) {
        SCOPED_TRACE(testing::Message() << tokens << ' ' << inputs << ' ' << outputs);
        Projection<TypeParam>(1, tokens, inputs, outputs).expect_reference();
      }
    }
  }
}

TYPED_TEST(ProjectionOf, EveryArrangementAndSeveralRows) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t rows : {1, 3}) {
      for (const std::int64_t tokens : {1, 40}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(arrangement) << ' ' << rows << ' ' << tokens);
        Projection<TypeParam> projection(rows, tokens, 37, 41, arrangement);
        projection.expect_reference();
        // Rows that are further apart than their tokens are long.
        projection.in = Kokkos::subview(random_strided_view<TypeParam>(arrangement, 5, rows, tokens + 3, 37),
                                        Kokkos::ALL, Kokkos::make_pair(std::int64_t{2}, tokens + 2), Kokkos::ALL);
        projection.expect_reference();
      }
    }
  }
}

/// So many that a team has several tiles of tokens, with inputs for one block and for two.
TYPED_TEST(ProjectionOf, ManyTokens) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::slice}) {
    for (const std::int64_t inputs : {6, 129})
      Projection<TypeParam>(1, 27001, inputs, 3, arrangement).expect_reference();
  }
}

/// More than the caches of a host hold.
TEST(ProjectionPath, LargeResults) { Projection<float>(1, 16411, 6, 517).expect_reference(); }

TYPED_TEST(ProjectionOf, BiasMayBeMissing) {
  Projection<TypeParam> projection(2, 9, 20, 17);
  projection.bias = {};
  projection.expect_reference();
}

TYPED_TEST(ProjectionOf, EmptyExtents) {
  Projection<TypeParam>(0, 3, 4, 5).run();
  Projection<TypeParam>(2, 0, 4, 5).run();
  Projection<TypeParam>(2, 3, 4, 0).run();
  // A sum of no terms: the bias alone.
  const Projection<TypeParam> no_inputs(1, 2, 0, 3);
  no_inputs.run();
  auto want = values_of(no_inputs.bias);
  want.insert(want.end(), want.begin(), want.end());
  EXPECT_TRUE(all_close(no_inputs.out, want, krait::test::tolerance<TypeParam>()));
}

TYPED_TEST(ProjectionOf, OneTokenDoesNotSeeAnother) {
  const Projection<TypeParam> projection(1, 70, 40, 33);
  projection.run();
  auto want = values_of(projection.out);
  auto inputs = values_of(projection.in);
  inputs[5 * 40 + 7] = std::numeric_limits<double>::quiet_NaN();
  krait::test::assign(projection.in, inputs);
  for (std::size_t i = 5 * 33; i < 6 * 33; ++i) want[i] = std::numeric_limits<double>::quiet_NaN();
  projection.run();
  EXPECT_TRUE(all_close(projection.out, want, krait::test::exact()));
}

TEST(ProjectionPath, TheLabelNamesTheOneTaken) {
  const auto path = [](const auto& projection) {
    projection.run();
    const krait::test::CallbackRecorder recorder;
    projection.run();
    return recorder.regions().front();
  };
#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
  EXPECT_EQ(path(Projection<float>(2, 3, 4, 5)), "krait::projection[kokkos_kernels,float]");
  EXPECT_EQ(path(Projection<double>(2, 3, 4, 5, Arrangement::slice)), "krait::projection[kokkos_kernels,double]");
#else
  EXPECT_EQ(path(Projection<float>(2, 3, 4, 5)), "krait::projection[tile,float]");
#endif
  EXPECT_EQ(path(Projection<float>(2, 3, 4, 5, Arrangement::gaps)), "krait::projection[tile,float]");
  EXPECT_EQ(path(Projection<krait::bfloat16>(2, 3, 4, 5)), "krait::projection[tile,bf16]");
}

template <class Change>
void refused(const char* text, const Change& change) {
  auto arguments = Projection<float>(2, 5, 12, 7).arguments();
  change(arguments);
  EXPECT_THAT([&] { krait::projection<float>(Exec(), arguments); }, ThrowsMessage<krait::ShapeError>(HasSubstr(text)));
}

TEST(ProjectionErrors, EveryExtentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 7);
  const Kokkos::View<float**> flat("krait::test::flat", 7, 11);
  const Kokkos::View<float*> four("krait::test::four", 4);
  refused("krait::projection: weight is (7, 11), expected (7, 12)", [&](auto& a) { a.weight = flat; });
  refused("krait::projection: out is (2, 6, 7), expected (2, 5, 7)", [&](auto& a) { a.out = odd; });
  refused("krait::projection: bias is (4), expected (7)", [&](auto& a) { a.bias = four; });
}

}  // namespace
