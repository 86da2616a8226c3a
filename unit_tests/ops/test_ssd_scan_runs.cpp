// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <krait/ops/ssd_scan.hpp>
#include <limits>
#include <utility>
#include <vector>

#include <support/packed_runs.hpp>
#include <support/ssd_data.hpp>

/// Packed rows, padding, states and segments: what must be equal to what.

namespace {

using krait::Run;
using krait::SequenceRuns;
using krait::test::all_close;
using krait::test::Decay;
using krait::test::expect_scan_matches;
using krait::test::mixed_runs;
using krait::test::run_scan;
using krait::test::runs_without_states;
using krait::test::same;
using krait::test::ScanData;
using krait::test::ScanSetup;
using krait::test::tolerance;

/// States live long enough to leak into anything that reads too far.
ScanSetup slow(std::int64_t batch, std::int64_t length) {
  ScanSetup setup;
  setup.shape = {.batch = batch, .length = length, .heads = 3, .head_dim = 5, .groups = 1, .d_state = 6};
  setup.options.chunk_size = 8;
  setup.decay = Decay::slow;
  setup.initial_states = true;
  return setup;
}

template <class T>
class SsdScanRuns : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16>;
TYPED_TEST_SUITE(SsdScanRuns, Scalars);

TYPED_TEST(SsdScanRuns, PackedRowsMatchTheRecurrence) {
  for (const bool initial : {true, false}) {
    ScanSetup setup = slow(2, 50);
    setup.initial_states = initial;
    setup.gate = true;
    setup.store_y = true;
    expect_scan_matches<TypeParam>(setup, mixed_runs());
  }
}

TYPED_TEST(SsdScanRuns, WithoutStates) {
  for (const std::int64_t segments : {1, 2, 5}) {
    SCOPED_TRACE(segments);
    ScanSetup setup = slow(2, 50);
    setup.options.segments = segments;
    expect_scan_matches<TypeParam>(setup, runs_without_states());
  }
}

TYPED_TEST(SsdScanRuns, ABoundaryAtEveryToken) {
  for (std::int64_t boundary = 0; boundary <= 20; ++boundary) {
    SCOPED_TRACE(boundary);
    const SequenceRuns runs(1, 20, {{0, 0, boundary, 0}, {0, boundary, 20, 1}}, 2);
    expect_scan_matches<TypeParam>(slow(1, 20), runs);
  }
}

TYPED_TEST(SsdScanRuns, SegmentsCutAnywhere) {
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
      for (const std::int64_t chunk : {3, 8, 64}) {
        SCOPED_TRACE(testing::Message() << "table " << i << ", segments " << segments << ", chunk " << chunk);
        ScanSetup setup = slow(1, 40);
        setup.options.segments = segments;
        setup.options.chunk_size = chunk;
        const ScanData<TypeParam> data(setup, runs.states());
        run_scan(data, runs);
        const auto want = krait::reference::ssd_scan(data.truth, runs);
        EXPECT_TRUE(all_close(data.out, want.out, tolerance<TypeParam>()));
        // States that no run names are left alone.
        auto got_states = krait::test::values_of(data.final_states);
        for (std::size_t state = tables[i].size() * 90; state < got_states.size(); ++state) {
          EXPECT_TRUE(std::isnan(got_states[state]));
          got_states[state] = 0;
        }
        EXPECT_TRUE(all_close(got_states, want.final_states, krait::test::accumulated_tolerance<TypeParam>()));
      }
    }
  }
}

TEST(SsdScan, ManyRowsInSegments) {
  ScanSetup setup = slow(2, 50);
  for (std::int64_t segments = 2; segments <= 60; segments += 7) {
    SCOPED_TRACE(segments);
    setup.options.segments = segments;
    expect_scan_matches<double>(setup, mixed_runs());
  }
}

TEST(SsdScan, ChunkLengthChangesNothingButRounding) {
  ScanSetup setup = slow(1, 37);
  const auto runs = SequenceRuns::whole_rows(1, 37);
  for (const Decay decay : {Decay::model, Decay::slow, Decay::mixed}) {
    setup.decay = decay;
    setup.options.chunk_size = 1;
    const ScanData<double> reference(setup, 1);
    run_scan(reference, runs);
    for (std::int64_t chunk = 2; chunk <= 38; ++chunk) {
      SCOPED_TRACE(chunk);
      setup.options.chunk_size = chunk;
      const ScanData<double> data(setup, 1);
      run_scan(data, runs);
      EXPECT_TRUE(all_close(data.out, reference.out, tolerance<double>()));
      EXPECT_TRUE(all_close(data.final_states, reference.final_states, tolerance<double>()));
    }
  }
}

TEST(SsdScan, SplitThroughStates) {
  constexpr std::int64_t length = 45;
  ScanSetup setup = slow(2, length);
  const ScanData<double> whole(setup, 2);
  run_scan(whole, SequenceRuns::whole_rows(2, length));
  for (const std::int64_t cut : {1, 7, 8, 20, 44}) {
    SCOPED_TRACE(cut);
    const ScanData<double> parts(setup, 2);
    ScanData<double>::View<double****> between("between", 2, 3, 5, 6);
    for (const auto& [from, to] : {std::pair{std::int64_t(0), cut}, std::pair{cut, length}}) {
      const auto range = Kokkos::make_pair(from, to);
      const auto slice = [&](const auto& view) {
        return Kokkos::subview(view, Kokkos::ALL, range, Kokkos::ALL, Kokkos::ALL);
      };
      auto arguments = parts.arguments();
      arguments.x = slice(parts.x);
      arguments.B = slice(parts.B);
      arguments.C = slice(parts.C);
      arguments.out = slice(parts.out);
      arguments.dt = Kokkos::subview(parts.dt, Kokkos::ALL, range, Kokkos::ALL);
      if (from == 0) {
        arguments.final_states = between;
      } else {
        arguments.initial_states = between;
      }
      krait::SsdScanShape shape = setup.shape;
      shape.length = to - from;
      const Kokkos::DefaultExecutionSpace exec;
      const krait::SsdScanPlan<double> plan(exec, shape, setup.options);
      krait::ssd_scan(exec, plan, arguments, SequenceRuns::whole_rows(2, shape.length));
    }
    EXPECT_TRUE(all_close(parts.out, whole.out, tolerance<double>()));
    EXPECT_TRUE(all_close(parts.final_states, whole.final_states, tolerance<double>()));
  }
}

/// A run alone in a row of its own, cut out of the data of a packed row.
TYPED_TEST(SsdScanRuns, PackedRunsEqualSeparateCallsBitForBit) {
  ScanSetup setup = slow(2, 50);
  setup.options.segments = 1;
  const SequenceRuns runs = mixed_runs();
  const ScanData<TypeParam> packed(setup, runs.states());
  run_scan(packed, runs);
  for (const Run& run : runs.host()) {
    SCOPED_TRACE(testing::Message() << "row " << run.row << ", tokens " << run.begin << " to " << run.end);
    const auto row = Kokkos::make_pair(run.row, run.row + 1);
    const auto tokens = Kokkos::make_pair(run.begin, run.end);
    const auto state = Kokkos::make_pair(run.state, run.state + 1);
    const auto slice = [&](const auto& view) { return Kokkos::subview(view, row, tokens, Kokkos::ALL, Kokkos::ALL); };
    const ScanData<TypeParam> alone(setup, runs.states());
    auto arguments = alone.arguments();
    arguments.x = slice(alone.x);
    arguments.B = slice(alone.B);
    arguments.C = slice(alone.C);
    arguments.out = slice(alone.out);
    arguments.dt = Kokkos::subview(alone.dt, row, tokens, Kokkos::ALL);
    arguments.initial_states = Kokkos::subview(alone.initial_states, state, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL);
    const auto final_state = Kokkos::subview(alone.final_states, state, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL);
    arguments.final_states = final_state;
    krait::SsdScanShape shape = setup.shape;
    shape.batch = 1;
    shape.length = run.end - run.begin;
    const Kokkos::DefaultExecutionSpace exec;
    const krait::SsdScanPlan<TypeParam> plan(exec, shape, setup.options);
    krait::ssd_scan(exec, plan, arguments, SequenceRuns::whole_rows(1, shape.length));
    EXPECT_TRUE(same(slice(packed.out), slice(alone.out)));
    EXPECT_TRUE(same(Kokkos::subview(packed.final_states, state, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL), final_state));
  }
}

/// Overwrites tokens [begin, end) of a row in every input.
template <class T>
void overwrite(const ScanData<T>& data, std::int64_t row, std::int64_t begin, std::int64_t end, double value) {
  const auto tokens = Kokkos::make_pair(begin, end);
  for (const auto& view : std::array{data.x, data.B, data.C, data.z}) {
    krait::test::fill(Kokkos::subview(view, row, tokens, Kokkos::ALL, Kokkos::ALL), value);
  }
  krait::test::fill(Kokkos::subview(data.dt, row, tokens, Kokkos::ALL), value);
}

TYPED_TEST(SsdScanRuns, PaddingIsInertEvenWhenItIsNan) {
  for (const std::int64_t segments : {1, 3}) {
    ScanSetup setup = slow(1, 40);
    setup.gate = true;
    setup.store_y = true;
    setup.options.segments = segments;
    const SequenceRuns runs(1, 40, {{0, 2, 12, 0}, {0, 17, 36, 1}}, 2);
    const ScanData<TypeParam> clean(setup, 2);
    const ScanData<TypeParam> padded(setup, 2);
    const std::pair<std::int64_t, std::int64_t> padding[] = {{0, 2}, {12, 17}, {36, 40}};
    for (const auto& [begin, end] : padding) overwrite(padded, 0, begin, end, std::nan(""));
    run_scan(clean, runs);
    run_scan(padded, runs);
    EXPECT_TRUE(same(padded.out, clean.out));
    EXPECT_TRUE(same(padded.y, clean.y));
    EXPECT_TRUE(same(padded.final_states, clean.final_states));
    for (const auto& [begin, end] : padding) {
      for (const auto& view : std::array{padded.out, padded.y}) {
        const auto zeros =
            krait::test::values_of(Kokkos::subview(view, 0, Kokkos::make_pair(begin, end), Kokkos::ALL, Kokkos::ALL));
        EXPECT_EQ(zeros, std::vector<double>(zeros.size(), 0.0));
      }
    }
  }
}

TYPED_TEST(SsdScanRuns, NothingOfARunTouchesTheNextRun) {
  const double infinite = std::numeric_limits<double>::infinity();
  for (const std::int64_t boundary : {7, 8, 13, 14, 20}) {
    for (const std::int64_t segments : {1, 2, 5}) {
      // The last token as a large number and as infinity, and all tokens, whose segments then hand over infinities.
      for (const auto& [first, value] :
           {std::pair{boundary - 1, 1e3}, std::pair{boundary - 1, infinite}, std::pair{std::int64_t(0), infinite}}) {
        SCOPED_TRACE(testing::Message() << "boundary " << boundary << ", segments " << segments << ", changed from "
                                        << first << " to " << value);
        ScanSetup setup = slow(1, 40);
        setup.gate = true;
        setup.options.segments = segments;
        const SequenceRuns runs(1, 40, {{0, 0, boundary, 0}, {0, boundary, 40, 1}}, 2);
        const ScanData<TypeParam> before(setup, 2);
        const ScanData<TypeParam> after(setup, 2);
        overwrite(after, 0, first, boundary, value);
        run_scan(before, runs);
        run_scan(after, runs);
        const auto next = [&](const auto& view) {
          return Kokkos::subview(view, 0, Kokkos::make_pair(boundary, std::int64_t(40)), Kokkos::ALL, Kokkos::ALL);
        };
        EXPECT_TRUE(same(next(after.out), next(before.out)));
        EXPECT_TRUE(same(Kokkos::subview(after.final_states, 1, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL),
                         Kokkos::subview(before.final_states, 1, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL)));
        EXPECT_FALSE(same(after.out, before.out)) << "the changed token must change its own run";
      }
    }
  }
}

}  // namespace
