// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <krait/core/error.hpp>
#include <krait/parallel/agreement.hpp>
#include <string>

namespace {

using krait::Communicator;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

Communicator world() { return Communicator::world(Kokkos::DefaultExecutionSpace()); }

TEST(Agreement, PassesWhenAllPass) {
  EXPECT_NO_THROW(krait::impl::agree(world(), "krait::test", {1, 2, 3}, [] {}));
}

TEST(Agreement, EveryRankThrowsTheErrorOfTheLowestThatFailed) {
  const auto group = world();
  const int culprit = group.size() / 2;
  const auto check = [&] {
    if (group.rank() >= culprit) throw krait::CapacityError("only " + std::to_string(group.rank()));
  };
  EXPECT_THAT([&] { krait::impl::agree(group, "krait::test", {}, check); },
              ThrowsMessage<krait::CapacityError>(HasSubstr("only " + std::to_string(culprit))));
  EXPECT_NO_THROW(krait::impl::agree(group, "krait::test", {}, [] {}));
}

TEST(Agreement, KeepsTheTypeOfTheError) {
  const auto group = world();
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::ConfigError("x"); }), krait::ConfigError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::LayoutError("x"); }), krait::LayoutError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::ShapeError("x"); }), krait::ShapeError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::FileError("x"); }), krait::FileError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::CommError("x"); }), krait::CommError);
}

TEST(Agreement, SharedValuesMustBeShared) {
  const auto group = world();
  if (group.size() == 1) return;
  const std::int64_t batch = group.rank() == 1 ? 5 : 4;
  EXPECT_THAT(
      [&] { krait::impl::agree(group, "krait::f", {7, batch}, [] {}); },
      ThrowsMessage<krait::LayoutError>(AllOf(HasSubstr("krait::f"), HasSubstr("rank 0 has 4 and rank 1 has 5"))));
}

}  // namespace
