// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <vector>

namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

void check_shape(int got) {
  KRAIT_REQUIRE(krait::ShapeError, got == 3, "krait::f: x is ", std::vector<int>{2, got}, ", expected extent ", 3);
}

TEST(Errors, MessageCarriesValuesFileAndLine) {
  EXPECT_NO_THROW(check_shape(3));
  EXPECT_THAT([] { check_shape(5); },
              ThrowsMessage<krait::ShapeError>(
                  AllOf(HasSubstr("krait::f: x is (2, 5), expected extent 3"), HasSubstr("test_error.cpp:"))));
}

TEST(Errors, AllDeriveFromError) {
  EXPECT_THROW(throw krait::ConfigError("x"), krait::Error);
  EXPECT_THROW(throw krait::LayoutError("x"), krait::Error);
  EXPECT_THROW(throw krait::ShapeError("x"), krait::Error);
  EXPECT_THROW(throw krait::CapacityError("x"), krait::Error);
  EXPECT_THROW(throw krait::CommError("x"), krait::Error);
  EXPECT_THROW(throw krait::FileError("x"), krait::Error);
}

}  // namespace
