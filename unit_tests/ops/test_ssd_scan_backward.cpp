// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <krait/ops/ssd_scan_backward.hpp>
#include <support/ssd_backward_data.hpp>

/// The gradients of the scan against the adjoint of the token recurrence, over the grid of its arguments.

namespace {

using krait::SsdScanBackwardPlan;
using krait::test::Decay;
using krait::test::expect_backward_matches;
using krait::test::ScanBackwardData;
using krait::test::ScanBackwardSetup;
using krait::test::Skip;

template <class T>
class SsdScanBackwardOf : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(SsdScanBackwardOf, Scalars);

ScanBackwardSetup small() {
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = 2, .length = 150, .heads = 4, .head_dim = 8, .groups = 2, .d_state = 16};
  return setup;
}

TYPED_TEST(SsdScanBackwardOf, EveryKindOfDecay) {
  for (const Decay decay : {Decay::model, Decay::slow, Decay::mixed}) {
    SCOPED_TRACE(static_cast<int>(decay));
    ScanBackwardSetup setup = small();
    setup.forward.shape.length = 700;
    setup.forward.decay = decay;
    setup.forward.initial_states = true;
    expect_backward_matches<TypeParam>(setup);
  }
}

TYPED_TEST(SsdScanBackwardOf, SkipGateBiasAndStates) {
  for (const Skip skip : {Skip::none, Skip::per_head, Skip::per_channel}) {
    for (int bits = 0; bits < 32; ++bits) {
      ScanBackwardSetup setup = small();
      setup.forward.shape.length = 70;
      setup.forward.skip = skip;
      setup.forward.gate = (bits & 1) != 0;
      setup.forward.dt_bias = (bits & 2) != 0;
      setup.forward.wide_dt = (bits & 2) != 0;
      setup.forward.options.dt_softplus = (bits & 4) != 0;
      setup.forward.initial_states = (bits & 8) != 0;
      setup.final_states = (bits & 16) != 0;
      SCOPED_TRACE(testing::Message() << "skip " << static_cast<int>(skip) << ", bits " << bits);
      expect_backward_matches<TypeParam>(setup);
    }
  }
}

TYPED_TEST(SsdScanBackwardOf, StepsAreClampedOnBothSides) {
  for (const bool softplus : {true, false}) {
    ScanBackwardSetup setup = small();
    setup.forward.options.dt_softplus = softplus;
    setup.forward.options.dt_min = 0.01;
    setup.forward.options.dt_max = 0.02;
    expect_backward_matches<TypeParam>(setup);
  }
}

/// A step that is exactly a bound of the clamp moves with its input, one beyond it does not.
TYPED_TEST(SsdScanBackwardOf, StepsAtTheBoundsOfTheClamp) {
  constexpr double below = 0.125, least = 0.25, most = 0.5, above = 1;  // exact in every scalar
  ScanBackwardSetup setup = small();
  setup.forward.dt_bias = false;
  setup.forward.options.dt_softplus = false;
  setup.forward.options.dt_min = least;
  setup.forward.options.dt_max = most;
  const auto runs = krait::SequenceRuns::whole_rows(setup.forward.shape.batch, setup.forward.shape.length);
  ScanBackwardData<TypeParam> data(setup, runs);
  const double steps[] = {least, below, most, above};
  for (std::size_t i = 0; i < data.forward.dt.size(); ++i)
    data.forward.dt.data()[i] = static_cast<TypeParam>(steps[i % 4]);
  data.forward.copy_to_truth();
  run_scan_backward(data, runs);
  expect_gradients(data, runs);
  for (std::size_t i = 0; i < data.ddt.size(); ++i) {
    const bool moves = i % 2 == 0;
    EXPECT_EQ(static_cast<double>(data.ddt.data()[i]) != 0, moves) << "step " << steps[i % 4];
  }
}

TYPED_TEST(SsdScanBackwardOf, OddShapes) {
  struct Shape {
    std::int64_t heads, head_dim, groups, d_state;
  };
  for (const Shape& s :
       {Shape{3, 5, 1, 5}, Shape{4, 8, 4, 8}, Shape{11, 19, 1, 19}, Shape{2, 32, 1, 32}, Shape{1, 128, 1, 128},
        Shape{3, 119, 3, 17}, Shape{2, 128, 1, 32}, Shape{2, 80, 2, 16}, Shape{2, 16, 1, 64}, Shape{2, 8, 1, 256},
        Shape{1, 1, 1, 1}, Shape{16, 4, 1, 4}, Shape{32, 3, 2, 5}}) {
    SCOPED_TRACE(testing::Message() << "H " << s.heads << " P " << s.head_dim << " G " << s.groups << " N "
                                    << s.d_state);
    ScanBackwardSetup setup;
    setup.forward.shape = {1, 75, s.heads, s.head_dim, s.groups, s.d_state};
    setup.forward.initial_states = true;
    expect_backward_matches<TypeParam>(setup);
  }
}

TYPED_TEST(SsdScanBackwardOf, ChunksAndLengths) {
  constexpr std::int64_t Q = 24;
  for (const std::int64_t length : {std::int64_t(0), std::int64_t(1), Q - 1, Q, Q + 1, 2 * Q + 3}) {
    for (const std::int64_t chunk : {std::int64_t(1), std::int64_t(2), std::int64_t(7), Q - 1, Q, Q + 1, length + 1}) {
      SCOPED_TRACE(testing::Message() << "length " << length << ", chunk " << chunk);
      ScanBackwardSetup setup = small();
      setup.forward.shape.length = length;
      setup.forward.options.chunk_size = chunk;
      setup.forward.initial_states = true;
      expect_backward_matches<TypeParam>(setup);
    }
  }
}

/// The tiles of a GPU on whatever runs the tests: several threads to a team, where there are any.
TYPED_TEST(SsdScanBackwardOf, Teams) {
  const int threads = Kokkos::DefaultExecutionSpace().concurrency();
  for (const int team_size : {2, 3, 4}) {
    if (team_size > threads) continue;
    SCOPED_TRACE(team_size);
    ScanBackwardSetup setup;
    setup.forward.shape = {2, 83, 3, 19, 1, 21};
    setup.forward.decay = Decay::slow;
    setup.forward.gate = true;
    setup.forward.initial_states = true;
    setup.tiling = {.chunk = 9 + team_size, .head_block = 2, .kept_chunks = 3, .team_size = team_size};
    for (const std::int64_t segments : {1, 3}) {
      setup.forward.options.segments = segments;
      expect_backward_matches<TypeParam>(setup);
    }
  }
}

TEST(SsdScanBackward, PlanFillsInWhatWasLeftOpen) {
  const Kokkos::DefaultExecutionSpace exec;
  const krait::SsdScanShape shape{.batch = 1, .length = 100, .heads = 6, .head_dim = 4, .groups = 2, .d_state = 4};
  const SsdScanBackwardPlan<float> plan(exec, shape);
  EXPECT_EQ(plan.options().heads_per_group, 3);
  EXPECT_GE(plan.options().segments, 1);
  EXPECT_EQ(plan.options().chunk_size, plan.tiling().chunk);
  EXPECT_GE(plan.tiling().head_block, 1);
  const SsdScanBackwardPlan<float> four(exec, shape, {.segments = 4});
  EXPECT_EQ(four.segment_length(), 25);
  // The gradients of the states that cross the three cuts, and the states themselves in the plan of the sweep.
  EXPECT_GE(four.workspace_bytes(), 3U * 6U * 4U * 4U * sizeof(float));
  EXPECT_GE(four.sweep().workspace().bytes(), 3U * 6U * 4U * 4U * sizeof(float));
  EXPECT_EQ(four.workspace().bytes(), 0U);  // until a call without one
}

/// However long the sequence is, the states that are kept at a time stay within bounds.
TEST(SsdScanBackward, StatesOfLongRowsAreKeptInParts) {
  const Kokkos::DefaultExecutionSpace exec;
  const SsdScanBackwardPlan<float> plan(
      exec, {.batch = 1, .length = 1 << 20, .heads = 2, .head_dim = 64, .groups = 1, .d_state = 128}, {.segments = 1});
  EXPECT_GT(plan.work().parts, 1);
  const std::int64_t state = 64 * 128 * sizeof(float);
  EXPECT_LE(plan.tiling().kept_chunks * plan.tiling().head_block * state, std::int64_t(128) << 20);
  EXPECT_GE(plan.tiling().kept_chunks * plan.tiling().chunk * plan.work().parts, 1 << 20);
}

}  // namespace
