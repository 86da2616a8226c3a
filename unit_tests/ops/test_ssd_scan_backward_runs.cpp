// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <krait/core/runs.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <limits>
#include <vector>

#include <support/packed_runs.hpp>
#include <support/ssd_backward_data.hpp>

/// Runs, padding, states, segments, parts and blocks of heads: where gradients flow and where they must not.

namespace {

using krait::Run;
using krait::SequenceRuns;
using krait::test::all_close;
using krait::test::Decay;
using krait::test::expect_backward_matches;
using krait::test::expect_same_gradients;
using krait::test::mixed_runs;
using krait::test::run_scan_backward;
using krait::test::runs_without_states;
using krait::test::same;
using krait::test::ScanBackwardData;
using krait::test::ScanBackwardSetup;
using krait::test::values_of;

/// The states of the runs, and one that belongs to none.
constexpr std::int64_t with_idle_state = 11;

/// States live long enough to leak into anything that reads too far.
ScanBackwardSetup slow(std::int64_t batch, std::int64_t length) {
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = batch, .length = length, .heads = 3, .head_dim = 5, .groups = 1, .d_state = 6};
  setup.forward.options.chunk_size = 8;
  setup.forward.decay = Decay::slow;
  setup.forward.initial_states = true;
  return setup;
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
    expect_backward_matches<TypeParam>(setup, mixed_runs(with_idle_state));
  }
}

TYPED_TEST(SsdScanBackwardRuns, WithoutStates) {
  for (const std::int64_t segments : {1, 2, 5}) {
    for (const int kept : {0, 1}) {
      SCOPED_TRACE(testing::Message() << "segments " << segments << ", kept " << kept);
      ScanBackwardSetup setup = slow(2, 50);
      setup.forward.gate = true;
      setup.forward.options.segments = segments;
      setup.tiling.kept_chunks = kept;
      expect_backward_matches<TypeParam>(setup, runs_without_states());
    }
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
    expect_backward_matches<double>(setup, mixed_runs(with_idle_state));
  }
}

/// Tokens [begin, end) of a row.
auto tokens_of(const auto& view, std::int64_t row, std::int64_t begin, std::int64_t end) {
  const auto tokens = Kokkos::make_pair(begin, end);
  if constexpr (std::decay_t<decltype(view)>::rank() == 4) {
    return Kokkos::subview(view, row, tokens, Kokkos::ALL, Kokkos::ALL);
  } else {
    return Kokkos::subview(view, row, tokens, Kokkos::ALL);
  }
}

/// Overwrites tokens [begin, end) of a row in every input, the gradient of the outputs among them.
template <class T>
void overwrite(const ScanBackwardData<T>& data, std::int64_t begin, std::int64_t end, double value) {
  for (const auto& view :
       std::array{data.forward.x, data.forward.B, data.forward.C, data.forward.z, data.forward.y, data.dout}) {
    krait::test::fill(tokens_of(view, 0, begin, end), value);
  }
  krait::test::fill(tokens_of(data.forward.dt, 0, begin, end), value);
}

/// Calls `body(name, view)` for the gradients that have a token each.
template <class T, class Body>
void for_each_token_gradient(const ScanBackwardData<T>& data, const Body& body) {
  body("dx", data.dx);
  body("dB", data.dB);
  body("dC", data.dC);
  body("dz", data.dz);
  body("ddt", data.ddt);
}

/// Whether two calls wrote the same gradients to the tokens and the initial state of a run.
template <class T>
void expect_same_there(const ScanBackwardData<T>& got, const ScanBackwardData<T>& want, const Run& run) {
  const auto there = [&](const auto& view) { return tokens_of(view, run.row, run.begin, run.end); };
  std::vector<std::vector<double>> wanted;
  for_each_token_gradient(want, [&](const char*, const auto& view) { wanted.push_back(values_of(there(view))); });
  std::size_t next = 0;
  for_each_token_gradient(got, [&](const char* name, const auto& view) {
    EXPECT_TRUE(all_close(there(view), wanted[next++], krait::test::exact())) << name;
  });
  const auto of_state = [&](const auto& view) {
    return Kokkos::subview(view, run.state, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL);
  };
  EXPECT_TRUE(same(of_state(got.dinitial_states), of_state(want.dinitial_states)));
}

TYPED_TEST(SsdScanBackwardRuns, PaddingIsInertEvenWhenItIsNan) {
  for (const std::int64_t segments : {1, 3}) {
    ScanBackwardSetup setup = slow(1, 40);
    setup.forward.gate = true;
    setup.forward.options.segments = segments;
    const SequenceRuns runs(1, 40, {{0, 2, 12, 0}, {0, 17, 36, 1}}, 2);
    const ScanBackwardData<TypeParam> clean(setup, runs);
    const ScanBackwardData<TypeParam> padded(setup, runs);
    const std::pair<std::int64_t, std::int64_t> padding[] = {{0, 2}, {12, 17}, {36, 40}};
    for (const auto& [begin, end] : padding) overwrite(padded, begin, end, std::nan(""));
    run_scan_backward(clean, runs);
    run_scan_backward(padded, runs);
    expect_same_gradients(padded, clean);
    for (const auto& [begin, end] : padding) {
      for_each_token_gradient(padded, [&](const char* name, const auto& view) {
        const auto zeros = values_of(tokens_of(view, 0, begin, end));
        EXPECT_EQ(zeros, std::vector<double>(zeros.size(), 0.0)) << name;
      });
    }
  }
}

/// Gradients flow to earlier tokens and states to later ones; neither crosses the boundary of two runs.
TYPED_TEST(SsdScanBackwardRuns, NothingOfARunTouchesAnother) {
  const double infinite = std::numeric_limits<double>::infinity();
  for (const std::int64_t boundary : {7, 8, 13, 14, 20}) {
    for (const std::int64_t segments : {1, 2, 5}) {
      const SequenceRuns runs(1, 40, {{0, 0, boundary, 0}, {0, boundary, 40, 1}}, 2);
      ScanBackwardSetup setup = slow(1, 40);
      setup.forward.gate = true;
      setup.forward.options.segments = segments;
      const ScanBackwardData<TypeParam> before(setup, runs);
      run_scan_backward(before, runs);
      // The tokens at the boundary, as a large number and as infinity, and all tokens of a run.
      for (const auto& [reach, value] : {std::pair{1, 1e3}, std::pair{1, infinite}, std::pair{40, infinite}}) {
        SCOPED_TRACE(testing::Message() << "boundary " << boundary << ", segments " << segments << ", " << reach
                                        << " tokens set to " << value);
        const ScanBackwardData<TypeParam> first(setup, runs);
        overwrite(first, std::max<std::int64_t>(0, boundary - reach), boundary, value);
        run_scan_backward(first, runs);
        expect_same_there(first, before, runs.host()[1]);
        EXPECT_FALSE(same(first.dx, before.dx)) << "the changed token must change its own run";

        const ScanBackwardData<TypeParam> second(setup, runs);
        overwrite(second, boundary, std::min<std::int64_t>(40, boundary + reach), value);
        run_scan_backward(second, runs);
        expect_same_there(second, before, runs.host()[0]);
        EXPECT_FALSE(same(second.dx, before.dx)) << "the changed token must change its own run";
      }
    }
  }
}

TEST(SsdScanBackward, ChunkLengthChangesNothingButRounding) {
  ScanBackwardSetup setup = slow(1, 37);
  const auto runs = SequenceRuns::whole_rows(1, 37);
  for (const Decay decay : {Decay::model, Decay::slow, Decay::mixed}) {
    setup.forward.decay = decay;
    setup.forward.options.chunk_size = 1;
    const ScanBackwardData<double> by_token(setup, runs);
    run_scan_backward(by_token, runs);
    for (std::int64_t chunk = 2; chunk <= 38; chunk += 3) {
      SCOPED_TRACE(chunk);
      setup.forward.options.chunk_size = chunk;
      const ScanBackwardData<double> data(setup, runs);
      run_scan_backward(data, runs);
      std::vector<std::vector<double>> wanted;
      by_token.for_each_gradient([&](const char*, const auto& view) { wanted.push_back(values_of(view)); });
      std::size_t next = 0;
      data.for_each_gradient([&](const char* name, const auto& view) {
        EXPECT_TRUE(all_close(view, wanted[next++], krait::test::tolerance<double>())) << name;
      });
    }
  }
}

/// A call over part of the tokens, of a data set that may be longer. Initial states and gradients of final ones are as
/// given; gradients go to where those of the whole would.
template <class T>
struct Part {
  const ScanBackwardData<T>& data;
  std::int64_t row, rows, begin, end;

  [[nodiscard]] auto tokens(const auto& view) const {
    const auto part = Kokkos::make_pair(begin, end);
    const auto of = Kokkos::make_pair(row, row + rows);
    if constexpr (std::decay_t<decltype(view)>::rank() == 4) {
      return Kokkos::subview(view, of, part, Kokkos::ALL, Kokkos::ALL);
    } else {
      return Kokkos::subview(view, of, part, Kokkos::ALL);
    }
  }

  [[nodiscard]] krait::SsdScanShape shape() const {
    krait::SsdScanShape shape = data.setup.forward.shape;
    shape.batch = rows;
    shape.length = end - begin;
    return shape;
  }

  [[nodiscard]] krait::SsdScanBackwardArguments<T> arguments() const {
    auto a = data.arguments();
    a.x = tokens(data.forward.x);
    a.dt = tokens(data.forward.dt);
    a.B = tokens(data.forward.B);
    a.C = tokens(data.forward.C);
    a.dout = tokens(data.dout);
    a.dx = tokens(data.dx);
    a.ddt = tokens(data.ddt);
    a.dB = tokens(data.dB);
    a.dC = tokens(data.dC);
    if (data.dz.is_allocated()) {
      a.z = tokens(data.forward.z);
      a.y = tokens(data.forward.y);
      a.dz = tokens(data.dz);
    }
    return a;
  }

  void run(const krait::SsdScanBackwardArguments<T>& arguments) const {
    const Kokkos::DefaultExecutionSpace exec;
    const krait::SsdScanBackwardPlan<T> plan(exec, shape(), data.setup.forward.options, data.setup.tiling);
    krait::ssd_scan_backward(exec, plan, arguments, SequenceRuns::whole_rows(rows, end - begin));
    exec.fence("krait::test: gradients are ready");
  }
};

/// Two calls that hand over the state forwards and its gradient backwards.
TEST(SsdScanBackward, SplitThroughStates) {
  constexpr std::int64_t length = 45;
  const ScanBackwardSetup setup = slow(2, length);
  const auto runs = SequenceRuns::whole_rows(2, length);
  const ScanBackwardData<double> whole(setup, runs);
  run_scan_backward(whole, runs);
  for (const std::int64_t cut : {1, 7, 8, 20, 44}) {
    SCOPED_TRACE(cut);
    const ScanBackwardData<double> parts(setup, runs);
    const Part<double> first{parts, 0, 2, 0, cut}, second{parts, 0, 2, cut, length};
    const ScanBackwardData<double>::View<double****> state("state", 2, 3, 5, 6), gradient("gradient", 2, 3, 5, 6);

    const Kokkos::DefaultExecutionSpace exec;
    auto forward = parts.forward.arguments();
    forward.x = first.tokens(parts.forward.x);
    forward.dt = first.tokens(parts.forward.dt);
    forward.B = first.tokens(parts.forward.B);
    forward.C = first.tokens(parts.forward.C);
    forward.out = first.tokens(parts.forward.out);
    forward.final_states = state;
    const krait::SsdScanPlan<double> plan(exec, first.shape(), setup.forward.options);
    krait::ssd_scan(exec, plan, forward, SequenceRuns::whole_rows(2, cut));

    auto arguments = second.arguments();
    arguments.initial_states = state;
    arguments.dinitial_states = gradient;
    second.run(arguments);
    arguments = first.arguments();
    arguments.dfinal_states = gradient;
    first.run(arguments);

    std::vector<std::vector<double>> wanted;
    whole.for_each_gradient([&](const char*, const auto& view) { wanted.push_back(values_of(view)); });
    std::size_t next = 0;
    parts.for_each_gradient([&](const char* name, const auto& view) {
      EXPECT_TRUE(all_close(view, wanted[next++], krait::test::tolerance<double>())) << name;
    });
  }
}

/// A run alone in a row of its own, cut out of the data of a packed row.
TYPED_TEST(SsdScanBackwardRuns, PackedRunsEqualSeparateCallsBitForBit) {
  ScanBackwardSetup setup = slow(2, 50);
  setup.forward.gate = true;
  setup.forward.options.segments = 1;
  setup.tiling.head_block = 2;
  const SequenceRuns runs = mixed_runs(with_idle_state);
  const ScanBackwardData<TypeParam> packed(setup, runs);
  run_scan_backward(packed, runs);
  const ScanBackwardData<TypeParam> separate(setup, runs);
  // One after the other, so that the parameters' gradients come together as well.
  for (const Run& run : runs.host()) {
    const Part<TypeParam> alone{separate, run.row, 1, run.begin, run.end};
    const auto of_state = [&](const auto& view) {
      return Kokkos::subview(view, Kokkos::make_pair(run.state, run.state + 1), Kokkos::ALL, Kokkos::ALL, Kokkos::ALL);
    };
    auto arguments = alone.arguments();
    arguments.initial_states = of_state(separate.forward.initial_states);
    arguments.dfinal_states = of_state(separate.dfinal_states);
    arguments.dinitial_states = of_state(separate.dinitial_states);
    alone.run(arguments);
  }
  for (const Run& run : runs.host()) {
    SCOPED_TRACE(testing::Message() << "row " << run.row << ", tokens " << run.begin << " to " << run.end);
    expect_same_there(separate, packed, run);
  }
  const auto close = krait::test::accumulated_tolerance<TypeParam>();
  EXPECT_TRUE(all_close(separate.dA, packed.dA, close));
  EXPECT_TRUE(all_close(separate.dD, packed.dD, close));
  EXPECT_TRUE(all_close(separate.ddt_bias, packed.ddt_bias, close));
}

/// The gradient of the log-decays by quite another formula: sums over later tokens of <dy, y> - <dx, x> (without the
/// skip), and the inner product of the final state with its gradient.
TEST(SsdScanBackward, DecayGradientByOutputs) {
  constexpr std::int64_t L = 45, H = 3, P = 5;
  ScanBackwardSetup setup = slow(1, L);
  setup.forward.options.dt_softplus = false;
  setup.forward.dt_bias = false;
  setup.forward.skip = krait::test::Skip::none;
  const auto runs = SequenceRuns::whole_rows(1, L);
  const ScanBackwardData<double> data(setup, runs);
  run_scan(data.forward, runs);
  run_scan_backward(data, runs);
  const auto x = values_of(data.forward.x), y = values_of(data.forward.out), dy = values_of(data.dout),
             dx = values_of(data.dx), delta = values_of(data.forward.dt), A = values_of(data.forward.A);
  const auto S = values_of(data.forward.final_states), dS = values_of(data.dfinal_states);
  auto want = values_of(data.ddt);
  for (std::size_t h = 0; h < H; ++h) {
    const std::size_t state = P * 6;
    double later = 0;
    for (std::size_t i = 0; i < state; ++i) later += S[h * state + i] * dS[h * state + i];
    for (std::size_t t = L; t-- > 0;) {
      double outputs = 0;
      double inputs = 0;
      for (std::size_t p = 0; p < P; ++p) {
        const std::size_t i = (t * H + h) * P + p;
        outputs += dy[i] * y[i];
        inputs += dx[i] * x[i];
      }
      later += outputs - inputs;
      want[t * H + h] = A[h] * later + inputs / delta[t * H + h];
    }
  }
  EXPECT_TRUE(all_close(data.ddt, want, {.nmse = 1e-22, .relative = 1e-10}));
}

}  // namespace
