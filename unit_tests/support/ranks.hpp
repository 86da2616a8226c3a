// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What tests on several ranks need besides the communicator under test. Everything here is collective and works on an
/// MPI communicator of its own; without MPI there is one rank.

#include <gtest/gtest.h>

#include <krait/comm/place.hpp>
#include <string>
#include <vector>

namespace krait::test {

/// This process among all of the program.
Place world_place();

/// Rank 0 gets the texts of all ranks, in their order; the others get nothing.
std::vector<std::string> gather_on_root(const std::string& text);

/// The largest value of all ranks.
int largest_of_ranks(int value);

/// Rank 0's value.
int from_root(int value);

/// True when it is true on all ranks. So either all ranks leave a test here, or none does, and nobody waits for a rank
/// that has gone.
bool on_all_ranks(bool condition);

}  // namespace krait::test

/// As EXPECT_TRUE, agreed over all ranks; all of them call it.
#define EXPECT_TRUE_ON_ALL_RANKS(condition) \
  EXPECT_TRUE(::krait::test::on_all_ranks(static_cast<bool>(condition))) << "at least one rank says: not " #condition
/// As ASSERT_TRUE, agreed over all ranks; all of them call it.
#define ASSERT_TRUE_ON_ALL_RANKS(condition) \
  ASSERT_TRUE(::krait::test::on_all_ranks(static_cast<bool>(condition))) << "at least one rank says: not " #condition
