// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/core/runs.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <limits>
#include <vector>

#include <support/ssd_backward_data.hpp>

/// Runs, padding, states, segments, parts and blocks of heads: where gradients flow and where they must not.

namespace {

using krait::Run;
using krait::SequenceRuns;
using krait::test::Decay;
using krait::test::expect_backward_matches;
using krait::test::expect_same_gradients;
using krait::test::run_scan_backward;
using krait::test::same;
using krait::test::ScanBackwardData;
using krait::test::ScanBackwardSetup;
using krait::test::values_of;

/// States live long enough to leak into anything that reads too far.
ScanBackwardSetup slow(std::int64_t batch, std::int64_t length) {
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = batch, .length = length, .heads = 3, .head_dim = 5, .groups = 1, .d_state = 6};
  setup.forward.options.chunk_size = 8;
  setup.forward.decay = Decay::slow;
  setup.forward.initial_states = true;
  return setup;
}

/// Two rows with runs of length 0, 1, 2 and more, padding before, between and behind them, and states out of order.
/// State 10 belongs to no run.
SequenceRuns mixed_runs() {
  return SequenceRuns(2, 50,
                      {{0, 0, 0, 9},
                       {0, 2, 3, 8},
                       {0, 3, 5, 7},
                       {0, 5, 22, 6},
                       {0, 25, 25, 5},
                       {0, 25, 46, 4},
                       {1, 0, 13, 3},
                       {1, 13, 13, 2},
                       {1, 13, 50, 1},
                       {1, 50, 50, 0}},
                      11);
}

template <class T>
class SsdScanBackwardRuns : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16>;
TYPED_TEST_SUITE(SsdScanBackwardRuns, Scalars);

TYPED_TEST(SsdScanBackwardRuns, PackedRowsMatchTheRecurrence) {
  for (int bits = 0; bits < 4; ++bits) {
    SCOPED_TRACE(bits);
    ScanBackwardSetup setup = slow(2, 50);
    setup.forward.initial_states = (bits & 1) != 0;
    setup.final_states = (bits & 2) != 0;
    setup.forward.gate = true;
    expect_backward_matches<TypeParam>(setup, mixed_runs());
  }
}

TYPED_TEST(SsdScanBackwardRuns, ABoundaryAtEveryToken) {
  for (std::int64_t boundary = 0; boundary <= 20; ++boundary) {
    SCOPED_TRACE(boundary);
    const SequenceRuns runs(1, 20, {{0, 0, boundary, 0}, {0, boundary, 20, 1}}, 2);
    expect_backward_matches<TypeParam>(slow(1, 20), runs);
  }
}

TYPED_TEST(SsdScanBackwardRuns, SegmentsPartsAndBlocksOfHeadsAnywhere) {
  // 40 tokens in 1...5 segments: cuts at 8, 10, 14, 16, 20, 24, 28, 30, 32. Boundaries at, beside and between them.
  const std::vector<std::vector<Run>> tables = {
      {{0, 0, 40, 0}},
      {{0, 0, 20, 0}, {0, 20, 40, 1}},
      {{0, 0, 9, 0}, {0, 9, 21, 1}, {0, 21, 29, 2}, {0, 29, 40, 3}},
      {{0, 0, 0, 0}, {0, 0, 8, 1}, {0, 8, 8, 2}, {0, 8, 16, 3}, {0, 20, 20, 4}, {0, 20, 30, 5}, {0, 40, 40, 6}},
      {{0, 3, 12, 0}, {0, 18, 39, 1}},
      {{0, 19, 20, 0}, {0, 21, 22, 1}},
      {}};
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const SequenceRuns runs(1, 40, tables[i], 7);
    for (std::int64_t segments = 1; segments <= 5; ++segments) {
      for (const int chunk : {3, 8, 64}) {
        for (const int kept : {0, 1, 2}) {
          SCOPED_TRACE(testing::Message()
                       << "table " << i << ", segments " << segments << ", chunk " << chunk << ", kept " << kept);
          ScanBackwardSetup setup = slow(1, 40);
          setup.forward.options.segments = segments;
          setup.forward.options.chunk_size = chunk;
          setup.tiling.kept_chunks = kept;
          setup.tiling.head_block = 1 + static_cast<int>(segments % 3);
          expect_backward_matches<TypeParam>(setup, runs);
        }
      }
    }
  }
}

/// Heads that begin and end inside groups, in blocks of every size; one group has no head at all.
TYPED_TEST(SsdScanBackwardRuns, BlocksOfHeads) {
  for (const std::int64_t first_head : {0, 5, 8}) {
    for (const int block : {0, 1, 2, 3, 4, 6}) {
      SCOPED_TRACE(testing::Message() << "first head " << first_head << ", block " << block);
      ScanBackwardSetup setup;
      setup.forward.shape = {2, 60, 6, 8, 4, 8};
      setup.forward.options.heads_per_group = 4;
      setup.forward.options.first_head = first_head;
      setup.tiling.head_block = block;
      expect_backward_matches<TypeParam>(setup);
    }
  }
}

TEST(SsdScanBackward, ManyRowsInSegments) {
  ScanBackwardSetup setup = slow(2, 50);
  for (std::int64_t segments = 2; segments <= 60; segments += 7) {
    SCOPED_TRACE(segments);
    setup.forward.options.segments = segments;
    expect_backward_matches<double>(setup, mixed_runs());
  }
}

}  // namespace
