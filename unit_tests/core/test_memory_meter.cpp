// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <krait/core/error.hpp>
#include <krait/core/memory_meter.hpp>

namespace {

using Bytes = Kokkos::View<std::byte*, Kokkos::HostSpace>;

TEST(MemoryMeter, CountsLiveAndPeakBytes) {
  const krait::MemoryMeter meter;
  EXPECT_EQ(meter.live_bytes(), 0U);
  {
    const Bytes a("krait::test::a", 1000);
    const Bytes b("krait::test::b", 500);
    EXPECT_GE(meter.live_bytes(), 1500U);
    EXPECT_LT(meter.live_bytes(), 1500U + 1024U);
  }
  EXPECT_EQ(meter.live_bytes(), 0U);
  EXPECT_GE(meter.peak_bytes(), 1500U);
  EXPECT_EQ(meter.allocations(), 2U);
}

TEST(MemoryMeter, PeakStartsAgain) {
  krait::MemoryMeter meter;
  {
    const Bytes a("krait::test::a", 4096);
  }
  meter.reset_peak();
  EXPECT_EQ(meter.peak_bytes(), 0U);
}

TEST(MemoryMeter, OneAtATime) {
  const krait::MemoryMeter meter;
  EXPECT_THROW(krait::MemoryMeter(), krait::Error);
}

TEST(MemoryMeter, ForgetsViewsFromBefore) {
  {
    Bytes before("krait::test::before", 1 << 20);
    const krait::MemoryMeter meter;
    before = Bytes();
    EXPECT_EQ(meter.live_bytes(), 0U);
  }
}

}  // namespace
