// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// The main of all test programs, on one rank or several.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <krait/comm/environment.hpp>
#include <memory>
#include <support/rank_listener.hpp>
#include <support/ranks.hpp>

namespace {

bool asks_for_help(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](const char* argument) {
    return std::strcmp(argument, "--help") == 0 || std::strcmp(argument, "-h") == 0;
  });
}

}  // namespace

int main(int argc, char** argv) {
  const krait::Environment environment(argc, argv);
  const bool root = krait::test::world_place().rank == 0;
  if (!root && asks_for_help(argc, argv)) return 0;
  testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return root ? RUN_ALL_TESTS() : 0;
  // Tests communicate: all ranks run them in the same order.
  if (GTEST_FLAG_GET(shuffle) && GTEST_FLAG_GET(random_seed) == 0) {
    GTEST_FLAG_SET(random_seed, krait::test::from_root(static_cast<int>(std::time(nullptr) % 99999) + 1));
  }

  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (!root) {
    const std::unique_ptr<testing::TestEventListener> printer(listeners.Release(listeners.default_result_printer()));
    const std::unique_ptr<testing::TestEventListener> report(listeners.Release(listeners.default_xml_generator()));
  }
  // The last one hears first that a test has ended, so the watchdog also sees a rank that waits in the gathering.
  listeners.Append(new krait::test::Watchdog);
  listeners.Append(new krait::test::RankListener);
  return krait::test::largest_of_ranks(RUN_ALL_TESTS());
}
