// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <utility>
#include <vector>

namespace {

using Exec = Kokkos::DefaultHostExecutionSpace;

TEST(Workspace, BlocksAreAlignedAndDoNotOverlap) {
  krait::WorkspaceLayout layout;
  EXPECT_EQ(layout.add<float>(3), 0U);
  EXPECT_EQ(layout.add<double>(100), 128U);
  EXPECT_EQ(layout.add<char>(0), 128U + 896U);
  EXPECT_EQ(layout.bytes(), 128U + 896U);
}

TEST(Workspace, GrowsOnlyWhenTooSmall) {
  const Exec exec;
  krait::Workspace<Exec> workspace("krait::test::workspace");
  workspace.reserve(exec, 1000);
  const auto* first = workspace.at<char>(0);
  workspace.reserve(exec, 500);
  EXPECT_EQ(workspace.at<char>(0), first);
  EXPECT_EQ(workspace.bytes(), 1000U);
  workspace.reserve(exec, 2000);
  EXPECT_EQ(workspace.bytes(), 2000U);
}

TEST(Workspace, OneThatMovedAwayIsAsGoodAsNew) {
  const Exec exec;
  krait::Workspace<Exec> first("krait::test::workspace");
  first.reserve(exec, 1000);
  const auto* memory = first.at<char>(0);
  krait::Workspace<Exec> second(std::move(first));
  EXPECT_EQ(second.at<char>(0), memory);
  EXPECT_EQ(first.bytes(), 0U);  // NOLINT(*-use-after-move)
  first.reserve(exec, 500);
  EXPECT_NE(first.at<char>(0), memory);
  first = std::move(second);
  EXPECT_EQ(first.at<char>(0), memory);
  EXPECT_EQ(second.bytes(), 0U);  // NOLINT(*-use-after-move)
}

TEST(Tensor, ViewsOfAnyLayoutConvert) {
  const Kokkos::View<float***, Kokkos::LayoutLeft, Kokkos::HostSpace> left("krait::test::left", 2, 3, 4);
  left(1, 2, 3) = 5;
  const krait::Tensor<const float***, Exec> tensor = left;
  EXPECT_EQ(tensor(1, 2, 3), 5);
  EXPECT_EQ(tensor.stride(2), 6U);
  EXPECT_TRUE(krait::is_absent(krait::Tensor<const float***, Exec>()));
  EXPECT_FALSE(krait::is_absent(tensor));
}

TEST(Tensor, MadeFromAPointerWithStrides) {
  std::vector<double> data(24);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<double>(i);
  const auto rows = krait::make_tensor<const double**, Exec, 2>(data.data(), {4, 6});
  EXPECT_EQ(rows(2, 5), 17);
  const auto columns = krait::make_tensor<const double**, Exec, 2>(data.data(), {6, 4}, {1, 6});
  EXPECT_EQ(columns(5, 2), 17);
}

TEST(MixedTensor, ReadsEitherScalar) {
  Kokkos::View<krait::bfloat16**, Kokkos::HostSpace> narrow("krait::test::narrow", 2, 2);
  Kokkos::View<float**, Kokkos::LayoutLeft, Kokkos::HostSpace> wide("krait::test::wide", 2, 2);
  narrow(1, 0) = krait::bfloat16(1.5F);
  wide(1, 0) = 1.001F;
  const krait::MixedTensor<krait::bfloat16, 2, Exec> a = narrow;
  const krait::MixedTensor<krait::bfloat16, 2, Exec> b = wide;
  EXPECT_EQ(a(1, 0), 1.5F);
  EXPECT_EQ(b(1, 0), 1.001F);
  EXPECT_TRUE((krait::MixedTensor<krait::bfloat16, 2, Exec>().absent()));
}

}  // namespace
