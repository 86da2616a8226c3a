// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// The main of all test programs, on one rank or several.

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <memory>
#include <string>
#include <support/rank_listener.hpp>
#include <support/ranks.hpp>

namespace {

bool asks_for_help(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](const char* argument) {
    return std::strcmp(argument, "--help") == 0 || std::strcmp(argument, "-h") == 0;
  });
}

/// Whether the program runs on as many ranks as the test is registered for. A launcher of another MPI starts so many
/// programs of one rank each, which would pass every comparison between ranks.
bool has_expected_ranks() {
  const char* expected = std::getenv("KRAIT_TEST_RANKS");
  const int ranks = krait::test::world_place().size;
  if (expected == nullptr || std::atoi(expected) == ranks) return true;
  std::cerr << "KRAIT_TEST_RANKS is " << expected << ", but this program runs on " << ranks
            << " ranks: does the launcher belong to the MPI that it is linked with?\n";
  return false;
}

/// What ctest takes for "skipped".
constexpr int skipped = 77;

/// A build for devices needs one; where there is none, compiled and linked is all that can be shown.
bool lacks_device() {
#ifdef KOKKOS_ENABLE_CUDA
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code == cudaSuccess && devices > 0) return false;
  std::cerr << "skipped: this build runs on CUDA devices, and there is none ("
            << (code == cudaSuccess ? "0 devices" : cudaGetErrorString(code)) << ")\n";
  return true;
#else
  return false;
#endif
}

/// NCCL refuses two ranks on one device unless they seem to be on different machines; tests make do with one device.
void let_ranks_share_a_device() {
  const char* const family = std::getenv("KRAIT_COMM");
  if (family == nullptr || std::strcmp(family, "nccl") != 0) return;
  const std::string machine = "krait-test-" + std::to_string(krait::test::world_place().rank);
  setenv("NCCL_HOSTID", machine.c_str(), 0);
  setenv("NCCL_SOCKET_IFNAME", "lo", 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (lacks_device()) return skipped;
  const krait::Environment environment(argc, argv);
  if (!has_expected_ranks()) return 1;
  let_ranks_share_a_device();
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
