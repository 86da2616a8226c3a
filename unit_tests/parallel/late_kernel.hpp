// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <chrono>
#include <cstdint>
#include <string_view>
#include <thread>

#include <krait/comm/communicator.hpp>

namespace krait::test {

/// While it exists, holds up the host before a kernel whose label starts like this begins for the n-th time from now
/// on, counted from 0. One at a time.
class LateKernel {
 public:
  LateKernel(std::string_view kernel, int turn, std::chrono::milliseconds time)
      : callbacks_(Kokkos::Tools::Experimental::get_callbacks()) {
    delay = {kernel, turn, time};
    Kokkos::Tools::Experimental::set_begin_parallel_for_callback(hold_up);
  }
  ~LateKernel() { Kokkos::Tools::Experimental::set_callbacks(callbacks_); }
  LateKernel(const LateKernel&) = delete;
  LateKernel& operator=(const LateKernel&) = delete;

  // NOLINTNEXTLINE(readability-convert-member-functions-to-static): asked while it exists
  [[nodiscard]] bool was_late() const { return delay.turn < 0; }

 private:
  struct Delay {
    std::string_view kernel;
    int turn;
    std::chrono::milliseconds time;
  };
  static inline Delay delay{};  // Kokkos takes plain function pointers

  static void hold_up(const char* label, std::uint32_t /*device*/, std::uint64_t* id) {
    *id = 0;
    if (std::string_view(label).starts_with(delay.kernel) && delay.turn-- == 0) std::this_thread::sleep_for(delay.time);
  }

  Kokkos::Tools::Experimental::EventSet callbacks_;
};

/// Seconds that this rank waits in its second run, in which all are held up for `time`: each once, before the kernel
/// and turn that it gives.
template <class Run>
double seconds_waited(const Communicator& world, std::string_view kernel, int turn, std::chrono::milliseconds time,
                      const Run& run) {
  run();  // also agrees on the layout
  world.barrier();
  const LateKernel late(kernel, turn, time);
  const double before = world.counters().total().seconds_waited;
  run();
  EXPECT_TRUE(late.was_late());
  return world.counters().total().seconds_waited - before;
}

}  // namespace krait::test
