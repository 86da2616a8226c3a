// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <krait/ops/ssd_scan.hpp>
#include <support/ssd_data.hpp>

/// The scan against the token recurrence, over the grid of its arguments.

namespace {

using krait::SsdScanOptions;
using krait::SsdScanPlan;
using krait::impl::SsdScanTiling;
using krait::test::Decay;
using krait::test::expect_scan_matches;
using krait::test::ScanSetup;
using krait::test::Skip;

template <class T>
class SsdScanOf : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(SsdScanOf, Scalars);

ScanSetup small() {
  ScanSetup setup;
  setup.shape = {.batch = 2, .length = 150, .heads = 4, .head_dim = 8, .groups = 2, .d_state = 16};
  return setup;
}

TYPED_TEST(SsdScanOf, EveryKindOfDecay) {
  for (const Decay decay : {Decay::model, Decay::slow, Decay::mixed}) {
    SCOPED_TRACE(static_cast<int>(decay));
    ScanSetup setup = small();
    setup.shape.length = 700;
    setup.decay = decay;
    setup.initial_states = true;
    expect_scan_matches<TypeParam>(setup);
  }
}

TYPED_TEST(SsdScanOf, SkipGateAndBias) {
  for (const Skip skip : {Skip::none, Skip::per_head, Skip::per_channel}) {
    for (int bits = 0; bits < 16; ++bits) {
      ScanSetup setup = small();
      setup.shape.length = 70;
      setup.skip = skip;
      setup.gate = (bits & 1) != 0;
      setup.store_y = setup.gate && (bits & 2) != 0;
      setup.dt_bias = (bits & 4) != 0;
      setup.options.dt_softplus = (bits & 8) != 0;
      setup.wide_dt = (bits & 2) != 0;
      SCOPED_TRACE(testing::Message() << "skip " << static_cast<int>(skip) << ", bits " << bits);
      expect_scan_matches<TypeParam>(setup);
    }
  }
}

TYPED_TEST(SsdScanOf, StepsAreClampedOnBothSides) {
  for (const bool softplus : {true, false}) {
    ScanSetup setup = small();
    setup.options.dt_softplus = softplus;
    setup.options.dt_min = 0.01;
    setup.options.dt_max = 0.02;
    expect_scan_matches<TypeParam>(setup);
  }
}

TYPED_TEST(SsdScanOf, OddShapes) {
  struct Shape {
    std::int64_t heads, head_dim, groups, d_state;
  };
  for (const Shape& s : {Shape{3, 5, 1, 5}, Shape{4, 8, 4, 8}, Shape{11, 19, 1, 19}, Shape{2, 32, 1, 32},
                         Shape{1, 128, 1, 128}, Shape{3, 119, 3, 17}, Shape{2, 128, 1, 32}, Shape{2, 80, 2, 16},
                         Shape{2, 16, 1, 64}, Shape{2, 8, 1, 256}, Shape{1, 1, 1, 1}, Shape{1, 3, 1, 1024}}) {
    SCOPED_TRACE(testing::Message() << "H " << s.heads << " P " << s.head_dim << " G " << s.groups << " N "
                                    << s.d_state);
    ScanSetup setup;
    setup.shape = {1, 75, s.heads, s.head_dim, s.groups, s.d_state};
    setup.initial_states = true;
    expect_scan_matches<TypeParam>(setup);
  }
}

TYPED_TEST(SsdScanOf, ChunksAndLengths) {
  constexpr std::int64_t Q = 24;
  for (const std::int64_t length : {std::int64_t(0), std::int64_t(1), Q - 1, Q, Q + 1, 2 * Q + 3}) {
    for (const std::int64_t chunk : {std::int64_t(1), std::int64_t(2), std::int64_t(7), Q - 1, Q, Q + 1, length + 1}) {
      SCOPED_TRACE(testing::Message() << "length " << length << ", chunk " << chunk);
      ScanSetup setup = small();
      setup.shape.length = length;
      setup.options.chunk_size = chunk;
      setup.initial_states = true;
      expect_scan_matches<TypeParam>(setup);
    }
  }
}

/// The tiles of a GPU on whatever runs the tests: few channels at a time, and several threads where there are any.
TYPED_TEST(SsdScanOf, TilesAndTeams) {
  const int threads = Kokkos::DefaultExecutionSpace().concurrency();
  for (const SsdScanTiling& tiling : {SsdScanTiling{16, 8, 1}, SsdScanTiling{5, 7, 1}, SsdScanTiling{16, 16, 2},
                                      SsdScanTiling{9, 3, 3}, SsdScanTiling{40, 19, 4}}) {
    if (tiling.team_size > threads) continue;
    SCOPED_TRACE(testing::Message() << "chunk " << tiling.chunk << ", channels " << tiling.head_tile << ", threads "
                                    << tiling.team_size);
    ScanSetup setup;
    setup.shape = {2, 83, 3, 19, 1, 21};
    setup.decay = Decay::slow;
    setup.gate = true;
    setup.store_y = true;
    setup.initial_states = true;
    for (const std::int64_t segments : {1, 3}) {
      setup.options.segments = segments;
      expect_scan_matches<TypeParam>(setup, tiling);
    }
  }
}

/// Heads side by side in the tiles of a host, in rows of the caller where heads follow each other and where they do
/// not.
TYPED_TEST(SsdScanOf, HeadsAbreast) {
  for (const SsdScanTiling& tiling :
       {SsdScanTiling{.chunk = 16, .head_block = 6, .abreast = 3},
        SsdScanTiling{.chunk = 9, .head_block = 6, .abreast = 2},
        SsdScanTiling{.chunk = 32, .head_tile = 3, .head_block = 3, .abreast = 3},
        SsdScanTiling{.head_block = 6, .abreast = 6}, SsdScanTiling{.chunk = 16, .head_block = 4, .abreast = 4}}) {
    for (const std::int64_t groups : {1, 2}) {
      SCOPED_TRACE(testing::Message() << "block " << tiling.head_block << ", abreast " << tiling.abreast << ", groups "
                                      << groups);
      ScanSetup setup;
      setup.shape = {2, 83, 6, 5, groups, 21};
      setup.decay = Decay::slow;
      setup.gate = groups == 1;
      setup.store_y = setup.gate;
      setup.skip = Skip::per_channel;
      setup.initial_states = true;
      for (const std::int64_t segments : {1, 3}) {
        setup.options.segments = segments;
        expect_scan_matches<TypeParam>(setup, tiling);
      }
    }
  }
}

TEST(SsdScan, OnlyHeadsOfOneGroupLieAbreast) {
  using Exec = Kokkos::DefaultExecutionSpace;
  if constexpr (krait::impl::scan_tiles<Exec, float> != krait::impl::ScanTiles::vectors) {
    GTEST_SKIP() << "heads lie side by side on hosts only";
  }
  const auto abreast = [](const krait::SsdScanShape& shape, const SsdScanOptions& options,
                          const SsdScanTiling& tiling) {
    return SsdScanPlan<float>(Exec(), shape, options, tiling).tiling().abreast;
  };
  // 165 channels take 11 vectors of 16; 33 take 3.
  EXPECT_EQ(abreast({1, 100, 5, 33, 1, 16}, {}, {.head_block = 5}), 5);
  EXPECT_EQ(abreast({1, 100, 5, 33, 1, 16}, {}, {.head_block = 1}), 1);
  EXPECT_EQ(abreast({1, 100, 8, 64, 1, 16}, {}, {.head_block = 8}), 1);
  EXPECT_EQ(abreast({1, 100, 8, 33, 2, 16}, {}, {.head_block = 8}), 4);
  EXPECT_EQ(abreast({1, 100, 8, 33, 2, 16}, {}, {.head_block = 8, .abreast = 3}), 1);
  EXPECT_EQ(abreast({1, 100, 7, 33, 2, 16}, {.heads_per_group = 4, .first_head = 1}, {.head_block = 7}), 1);
}

TEST(SsdScan, HeadsThatBeginInsideAGroup) {
  // Heads 5...10 of a model with 4 heads per group: groups 1, 2.
  ScanSetup setup;
  setup.shape = {1, 60, 6, 8, 3, 8};
  setup.options.heads_per_group = 4;
  setup.options.first_head = 5;
  expect_scan_matches<float>(setup);
}

TEST(SsdScan, PlanFillsInWhatWasLeftOpen) {
  const Kokkos::DefaultExecutionSpace exec;
  const SsdScanPlan<float> plan(exec,
                                {.batch = 1, .length = 100, .heads = 6, .head_dim = 4, .groups = 2, .d_state = 4});
  EXPECT_EQ(plan.options().heads_per_group, 3);
  EXPECT_GE(plan.options().segments, 1);
  EXPECT_GE(plan.options().chunk_size, 1);
  EXPECT_LE(plan.options().chunk_size, 128);
  const SsdScanPlan<float> one(exec, plan.shape(), SsdScanOptions{.segments = 1});
  EXPECT_EQ(one.workspace_bytes(), 0U);
  const SsdScanPlan<float> four(exec, plan.shape(), SsdScanOptions{.segments = 4});
  EXPECT_EQ(four.segment_length(), 25);
  EXPECT_GE(four.workspace_bytes(), 3U * 6U * 4U * 4U * sizeof(float));
  EXPECT_GE(four.workspace().bytes(), four.workspace_bytes());
}

}  // namespace
