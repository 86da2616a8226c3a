// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <krait/core/config.hpp>
#include <krait/core/error.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>
#include <krait/reference/projection_backward.hpp>
#include <string>
#include <vector>

#include <support/allclose.hpp>
#include <support/callback_recorder.hpp>
#include <support/finite_differences.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::random_strided_view;
using krait::test::strided_view;
using krait::test::tolerance;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// Owns what the arguments point to. The gradients of the parameters begin as random numbers.
template <class T>
struct Backward {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> in, dout, din;
  Kokkos::View<T**, Kokkos::LayoutStride> weight;
  Kokkos::View<A**, Kokkos::LayoutStride> dweight;
  Kokkos::View<A*> dbias;
  Kokkos::View<std::byte*> workspace;

  Backward(std::int64_t rows, std::int64_t tokens, std::int64_t inputs, std::int64_t outputs,
           Arrangement arrangement = Arrangement::features_last)
      : in(random_strided_view<T>(arrangement, 1, rows, tokens, inputs)),
        dout(strided_view<T>(arrangement, rows, tokens, outputs)),
        din(strided_view<T>(arrangement, rows, tokens, inputs)),
        weight(matrix(random_strided_view<T>(arrangement, 2, 1, outputs, inputs))),
        dweight(matrix(random_strided_view<A>(arrangement, 4, 1, outputs, inputs))),
        dbias(krait::test::random_view<Kokkos::View<A*>>(5, outputs)),
        workspace("krait::test::workspace",
                  krait::projection_backward_workspace_bytes<T, Exec>(rows, tokens, inputs, outputs)) {
    Kokkos::deep_copy(workspace, std::byte{0xff});  // NaN in every scalar
    // Keeps din of order 1.
    krait::test::fill_normal(dout, 3, 0, 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(outputs, 1))));
  }

  [[nodiscard]] krait::ProjectionBackwardArguments<T> arguments() const {
    krait::ProjectionBackwardArguments<T> result;
    result.in = in;
    result.weight = weight;
    result.dout = dout;
    result.din = din;
    result.dweight = dweight;
    result.dbias = dbias;
    result.workspace = workspace;
    return result;
  }

  void run() const { krait::projection_backward<T>(Exec(), arguments()); }

  void expect_reference() const {
    auto want = krait::reference::projection_backward(static_cast<std::int64_t>(in.extent(2)),
                                                      static_cast<std::int64_t>(dout.extent(2)), values_of(in),
                                                      values_of(weight), values_of(dout));
    add(want.weight, values_of(dweight));
    add(want.bias, values_of(dbias));
    run();
    EXPECT_TRUE(all_close(din, want.in, tolerance<T>())) << "din";
    EXPECT_TRUE(all_close(dweight, want.weight, tolerance<A>())) << "dweight";
    EXPECT_TRUE(all_close(dbias, want.bias, tolerance<A>())) << "dbias";
  }

 private:
  template <class View>
  static auto matrix(const View& view) {
    return Kokkos::subview(view, 0, Kokkos::ALL, Kokkos::ALL);
  }
  static void add(std::vector<double>& to, const std::vector<double>& values) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += values[i];
  }
};

template <class T>
class ProjectionBackwardOf : public testing::Test {};
TYPED_TEST_SUITE(ProjectionBackwardOf, Scalars);

TYPED_TEST(ProjectionBackwardOf, OddShapesMatchTheReference) {
  for (const std::int64_t tokens : {1, 3, 129}) {
    for (const std::int64_t inputs : {1, 5, 130}) {
      for (const std::int64_t outputs : {1, 33, 127, 300}) {
        SCOPED_TRACE(testing::Message() << tokens << ' ' << inputs << ' ' << outputs);
        Backward<TypeParam>(1, tokens, inputs, outputs).expect_reference();
      }
    }
  }
}

/// Sums that are cut into parts, of rows much shorter and much longer than a part.
TYPED_TEST(ProjectionBackwardOf, ManyTokensAreSummedInParts) {
  Backward<TypeParam>(1, 2000, 13, 70).expect_reference();
  Backward<TypeParam>(300, 5, 70, 13).expect_reference();
  Backward<TypeParam>(3, 700, 65, 9, Arrangement::slice).expect_reference();
}

TYPED_TEST(ProjectionBackwardOf, EveryArrangementAndSeveralRows) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t rows : {1, 3}) {
      for (const std::int64_t tokens : {1, 40, 260}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(arrangement) << ' ' << rows << ' ' << tokens);
        Backward<TypeParam> backward(rows, tokens, 37, 70, arrangement);
        backward.expect_reference();
        // Rows that are further apart than their tokens are long.
        backward.in = Kokkos::subview(random_strided_view<TypeParam>(arrangement, 5, rows, tokens + 3, 37), Kokkos::ALL,
                                      Kokkos::make_pair(std::int64_t{2}, tokens + 2), Kokkos::ALL);
        backward.expect_reference();
        backward.din = Kokkos::subview(strided_view<TypeParam>(arrangement, rows, tokens + 3, 37), Kokkos::ALL,
                                       Kokkos::make_pair(std::int64_t{2}, tokens + 2), Kokkos::ALL);
        backward.expect_reference();
      }
    }
  }
}

TEST(ProjectionBackward, GradientsAreThoseOfTheForward) {
  Backward<double> backward(2, 7, 5, 6);
  krait::test::fill(backward.dweight, 0);
  krait::test::fill(backward.dbias, 0);
  backward.run();
  const auto bias = krait::test::random_view<Kokkos::View<double*>>(6, 6);
  const auto out = strided_view<double>(Arrangement::features_last, 2, 7, 6);
  const auto weights = values_of(backward.dout);
  const auto loss = [&] {
    krait::ProjectionArguments<double> arguments;
    arguments.in = backward.in;
    arguments.weight = backward.weight;
    arguments.bias = bias;
    arguments.out = out;
    krait::projection<double>(Exec(), arguments);
    return krait::test::weighted_sum(weights, values_of(out));
  };
  const auto expect = [&](const auto& gradient, const auto& input) {
    EXPECT_TRUE(all_close(gradient, krait::test::finite_differences(input, loss), krait::test::by_differences()));
  };
  expect(backward.din, backward.in);
  expect(backward.dweight, backward.weight);
  expect(backward.dbias, bias);
}

/// What is not asked for is not formed, and what it alone would need may be missing.
TYPED_TEST(ProjectionBackwardOf, EachGradientAlone) {
  using Arguments = krait::ProjectionBackwardArguments<TypeParam>;
  const Backward<TypeParam> whole(2, 300, 20, 17);
  const Backward<TypeParam> alone(2, 300, 20, 17);
  whole.run();
  Arguments only_din;
  only_din.weight = alone.weight;
  only_din.dout = alone.dout;
  only_din.din = alone.din;
  krait::projection_backward<TypeParam>(Exec(), only_din);
  EXPECT_TRUE(krait::test::same(alone.din, whole.din));

  Arguments only_dweight;
  only_dweight.in = alone.in;
  only_dweight.dout = alone.dout;
  only_dweight.dweight = alone.dweight;
  only_dweight.workspace = alone.workspace;
  krait::projection_backward<TypeParam>(Exec(), only_dweight);
  EXPECT_TRUE(krait::test::same(alone.dweight, whole.dweight));

  Arguments only_dbias;
  only_dbias.dout = alone.dout;
  only_dbias.dbias = alone.dbias;
  only_dbias.workspace = alone.workspace;
  krait::projection_backward<TypeParam>(Exec(), only_dbias);
  EXPECT_TRUE(krait::test::same(alone.dbias, whole.dbias));
}

TYPED_TEST(ProjectionBackwardOf, EmptyExtents) {
  for (const auto& [rows, tokens, inputs, outputs] :
       {std::array<std::int64_t, 4>{0, 3, 4, 5}, {2, 0, 4, 5}, {2, 3, 0, 5}, {2, 3, 4, 0}}) {
    SCOPED_TRACE(testing::Message() << rows << ' ' << tokens << ' ' << inputs << ' ' << outputs);
    Backward<TypeParam>(rows, tokens, inputs, outputs).expect_reference();
  }
}

TEST(ProjectionBackwardWorkspace, IsBounded) {
  const auto bytes = [](std::int64_t tokens, std::int64_t inputs, std::int64_t outputs) {
    return krait::projection_backward_workspace_bytes<float, Exec>(1, tokens, inputs, outputs);
  };
  const auto tokens = std::int64_t{1} << 24;
  EXPECT_LE(bytes(tokens, 4096, 18560), std::size_t{8} << 20);
  EXPECT_LE(bytes(tokens, 24, 100), std::size_t{8} << 20);
  EXPECT_LE(bytes(10, 4096, 18560), sizeof(float) * 18560);
}

TEST(ProjectionBackwardPath, TheLabelNamesTheOneTaken) {
  const auto path = [](const auto& backward) {
    backward.run();
    const krait::test::CallbackRecorder recorder;
    backward.run();
    return recorder.regions().front();
  };
#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
  EXPECT_EQ(path(Backward<float>(2, 3, 4, 5)), "krait::projection_backward[kokkos_kernels,float]");
  EXPECT_EQ(path(Backward<double>(2, 3, 4, 5, Arrangement::slice)),
            "krait::projection_backward[kokkos_kernels,double]");
#else
  EXPECT_EQ(path(Backward<float>(2, 3, 4, 5)), "krait::projection_backward[tile,float]");
#endif
  EXPECT_EQ(path(Backward<float>(2, 3, 4, 5, Arrangement::gaps)), "krait::projection_backward[tile,float]");
  EXPECT_EQ(path(Backward<krait::bfloat16>(2, 3, 4, 5)), "krait::projection_backward[tile,bf16]");
}

template <class E = krait::ShapeError, class Change>
void refused(const std::string& text, const Change& change) {
  const Backward<float> backward(2, 5, 12, 7);
  auto arguments = backward.arguments();
  const auto before = values_of(backward.dweight);
  change(arguments);
  EXPECT_THAT([&] { krait::projection_backward<float>(Exec(), arguments); }, ThrowsMessage<E>(HasSubstr(text)));
  EXPECT_TRUE(all_close(backward.dweight, before, krait::test::exact())) << "refused, but touched";
}

TEST(ProjectionBackwardErrors, EveryArgumentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 7);
  const Kokkos::View<float**> flat("krait::test::flat", 7, 11);
  const Kokkos::View<float*> four("krait::test::four", 4);
  const Kokkos::View<std::byte*> little("krait::test::little", 27);
  const std::string name = "krait::projection_backward: ";
  refused(name + "weight is (7, 11), expected (7, 12)", [&](auto& a) { a.weight = flat; });
  refused(name + "weight is (0, 0), expected (7, 12)", [&](auto& a) { a.weight = {}; });
  refused(name + "din is (2, 6, 7), expected (2, 5, 12)", [&](auto& a) { a.din = odd; });
  refused(name + "in is (2, 6, 7), expected (2, 5, 12)", [&](auto& a) { a.in = odd; });
  refused(name + "in is (0, 0, 0), expected (2, 5, 12)", [&](auto& a) { a.in = {}; });
  refused(name + "weight is (7, 12), expected (7, 11)", [&](auto& a) { a.dweight = flat; });
  refused(name + "dbias is (4), expected (7)", [&](auto& a) { a.dbias = four; });
  refused(name + "din is (2, 5, 12), expected (2, 6, 12)", [&](auto& a) { a.dout = odd; });
  refused<krait::CapacityError>(name + "workspace has 0 bytes, expected 28", [&](auto& a) { a.workspace = {}; });
  refused<krait::CapacityError>(name + "workspace has 27 bytes, expected 28", [&](auto& a) { a.workspace = little; });
}

}  // namespace
