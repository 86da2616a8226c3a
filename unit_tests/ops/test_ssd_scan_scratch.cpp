// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shared memory of the scan's teams, as docs/gpu.md has it. Only where warps work, or are emulated.
#include <gtest/gtest.h>

#include <krait/core/scalars.hpp>
#include <krait/ops/ssd_scan_tiling.hpp>
#include <krait/ops/team_memory.hpp>
#include <krait/tile/cuda/copy.hpp>

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::impl::SsdScanScratch;

/// What Kokkos 5.2 names as its limit on a GPU with 227 KiB for a block, 1 KiB of them reserved.
constexpr std::int64_t limit = 227 * 1024 - 1024 - (1026 * 8 + 8 + 16 * 1024);

template <class T>
std::int64_t bytes(int chunk, int head_tile, int d_state) {
  return SsdScanScratch::of<Exec, T>({.chunk = chunk, .head_tile = head_tile, .head_block = 1}, d_state).count * 4;
}

TEST(SsdScanScratch, FitsTwiceOnAMultiprocessor) {
  EXPECT_EQ(bytes<krait::bfloat16>(64, 64, 128), 108288);
  EXPECT_EQ(bytes<krait::float16>(64, 64, 128), 108288);
  EXPECT_EQ(bytes<float>(32, 64, 128), 92720);
  const std::int64_t budget = krait::impl::chip_bytes(limit);
  EXPECT_LE(bytes<krait::bfloat16>(64, 64, 128), budget);
  EXPECT_LE(bytes<float>(32, 64, 128), budget);
  // What the system and a team's reductions take comes on top.
  constexpr std::int64_t multiprocessor = 228 * 1024;
  EXPECT_LE(2 * (budget + 64 + 1024 + 130 * 8 + 16), multiprocessor);
}

TEST(SsdScanScratch, TilesAreAligned) {
  for (const int chunk : {1, 16, 17, 64}) {
    for (const int d_state : {1, 16, 100, 128}) {
      for (const int head_tile : {1, 16, 40, 64}) {
        const auto s = SsdScanScratch::of<Exec, krait::bfloat16>(
            {.chunk = chunk, .head_tile = head_tile, .head_block = 2}, d_state);
        for (const std::int64_t place : {s.state, s.b, s.x, s.vectors, s.c, s.weights, s.y, s.skip, s.state_size}) {
          EXPECT_EQ(place * 4 % krait::tile::cuda::vector_bytes, 0);
        }
      }
    }
  }
}

TEST(SsdScanScratch, OlderKokkosGivesLess) { EXPECT_LE(krait::impl::chip_bytes(40 * 1024), 40 * 1024); }

}  // namespace
