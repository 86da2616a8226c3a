// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Kokkos_Profiling_ScopedRegion.hpp>

#include <support/allclose.hpp>
#include <support/callback_recorder.hpp>
#include <support/random_view.hpp>

namespace {

using krait::test::all_close;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(AllClose, ShowsThePositionOfWrongEntries) {
  const Kokkos::View<float**> got("krait::test::got", 2, 3);
  krait::test::fill(got, 1);
  std::vector<double> want(6, 1.0);
  EXPECT_TRUE(all_close(got, want, krait::test::tolerance<float>()));
  want[5] = 1.5;
  const auto result = all_close(got, want, krait::test::tolerance<float>());
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message(), HasSubstr("at (1, 2): got 1, wanted 1.5"));
}

TEST(AllClose, NanIsWrongUnlessWanted) {
  const std::vector<double> nan(2, std::nan(""));
  const std::vector<double> one(2, 1.0);
  EXPECT_FALSE(all_close(nan, one, krait::test::tolerance<float>()));
  EXPECT_FALSE(all_close(one, nan, krait::test::tolerance<float>()));
  EXPECT_TRUE(all_close(nan, nan, krait::test::exact()));
}

TEST(AllClose, BoundsFollowTheScalar) {
  const std::vector<double> want(100, 1.0);
  const auto close = [&](double error, const krait::test::Tolerance& tolerance) {
    std::vector<double> got = want;
    for (double& value : got) value += error;
    return static_cast<bool>(all_close(got, want, tolerance));
  };
  EXPECT_TRUE(close(0.9e-12, krait::test::tolerance<double>()));
  EXPECT_FALSE(close(1.1e-12, krait::test::tolerance<double>()));
  EXPECT_TRUE(close(0.9e-5, krait::test::tolerance<float>()));
  EXPECT_FALSE(close(1.1e-5, krait::test::tolerance<float>()));
  EXPECT_TRUE(close(4.9e-3, krait::test::tolerance<krait::bfloat16>()));
  EXPECT_FALSE(close(5.1e-3, krait::test::tolerance<krait::bfloat16>()));
  EXPECT_FALSE(all_close(std::vector<double>(1, 1.0), want, krait::test::exact()));
}

TEST(RandomView, DoesNotDependOnTheLayout) {
  const auto left = krait::test::random_view<Kokkos::View<double***, Kokkos::LayoutLeft>>(3, 2, 3, 4);
  const auto right = krait::test::random_view<Kokkos::View<double***, Kokkos::LayoutRight>>(3, 2, 3, 4);
  EXPECT_TRUE(krait::test::same(left, right));
  EXPECT_NE(krait::test::values_of(right)[0], krait::test::values_of(right)[1]);
}

TEST(ViewValues, RoundTripThroughAStridedSlice) {
  const Kokkos::View<krait::bfloat16***> wide("krait::test::wide", 3, 4, 5);
  const auto slice = Kokkos::subview(wide, Kokkos::ALL, Kokkos::make_pair(1, 3), Kokkos::ALL);
  std::vector<double> values(30);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  krait::test::assign(slice, values);
  EXPECT_EQ(krait::test::values_of(slice), values);
  EXPECT_EQ(krait::test::values_of(wide)[0], 0.0);
}

struct Nothing {
  KOKKOS_FUNCTION void operator()(int) const {}
};

TEST(CallbackRecorder, SeesKernelsRegionsAllocationsAndFences) {
  const Kokkos::DefaultExecutionSpace exec;
  const krait::test::CallbackRecorder recorder;
  {
    const Kokkos::Profiling::ScopedRegion region("krait::test::region");
    const Kokkos::View<float*> view("some::view", 3);
    Kokkos::parallel_for("krait::test::kernel", Kokkos::RangePolicy<>(exec, 0, 3), Nothing());
  }
  exec.fence("krait::test: done");
  ASSERT_FALSE(recorder.kernels().empty());
  EXPECT_EQ(recorder.kernels().back().label, "krait::test::kernel");
  EXPECT_EQ(recorder.kernels().back().device, Kokkos::Tools::Experimental::device_id(exec));
  EXPECT_THAT(recorder.regions(), ElementsAre("krait::test::region"));
  EXPECT_THAT(recorder.allocations(), ElementsAre("some::view"));
  EXPECT_THAT(recorder.foreign_labels(), testing::Contains("some::view"));
  EXPECT_EQ(recorder.fences().back().label, "krait::test: done");
}

}  // namespace
