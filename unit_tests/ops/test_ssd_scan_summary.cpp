// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <krait/core/error.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_summary.hpp>
#include <limits>
#include <numeric>
#include <vector>

#include <support/callback_recorder.hpp>
#include <support/ssd_backward_data.hpp>

/// What runs make of the state: against the reference, against the scan, and without what cannot matter.

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::Run;
using krait::SequenceRuns;
using krait::ShapeError;
using krait::SsdScanPlan;
using krait::SsdScanSummaryArguments;
using krait::SsdScanSummaryBackwardArguments;
using krait::test::all_close;
using krait::test::Decay;
using krait::test::poisoned_view;
using krait::test::same;
using krait::test::ScanBackwardData;
using krait::test::ScanBackwardSetup;
using krait::test::ScanData;
using krait::test::Skip;
using krait::test::tolerance;
using krait::test::values_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using testing::ThrowsMessage;

ScanBackwardSetup setup_of(Decay decay, std::int64_t batch, std::int64_t length) {
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = batch, .length = length, .heads = 3, .head_dim = 5, .groups = 1, .d_state = 6};
  setup.forward.options.chunk_size = 8;
  setup.forward.decay = decay;
  setup.forward.skip = Skip::none;
  setup.forward.initial_states = true;
  return setup;
}

/// Maps of runs, forward and backward, in the memory of messages: the state of each head, then the log-decays.
template <class T>
struct Summary {
  using V = krait::accumulator_t<T>;
  using Slots = Kokkos::View<V**, Kokkos::LayoutRight>;

  krait::SsdScanShape shape;
  krait::SsdScanOptions options;
  krait::impl::SsdScanTiling tiling;
  Slots forward, backward;

  Summary(const ScanBackwardData<T>& data, std::int64_t slots)
      : shape(data.setup.forward.shape),
        options(data.setup.forward.options),
        forward(poisoned_view<Slots>(slots, size() + shape.heads)),
        backward(poisoned_view<Slots>(slots, size() + shape.heads)) {}

  [[nodiscard]] std::int64_t size() const { return shape.heads * shape.head_dim * shape.d_state; }

  [[nodiscard]] krait::Tensor<V****> own(const Slots& slots) const {
    const auto pitch = static_cast<std::int64_t>(slots.extent(1));
    return krait::make_tensor<V****, Exec, 4>(
        slots.data(), {static_cast<std::int64_t>(slots.extent(0)), shape.heads, shape.head_dim, shape.d_state},
        {pitch, shape.head_dim * shape.d_state, shape.d_state, 1});
  }
  [[nodiscard]] krait::Tensor<V**> log_alphas(const Slots& slots) const {
    const auto pitch = static_cast<std::int64_t>(slots.extent(1));
    return krait::make_tensor<V**, Exec, 2>(slots.data() + size(),
                                            {static_cast<std::int64_t>(slots.extent(0)), shape.heads}, {pitch, 1});
  }

  [[nodiscard]] SsdScanSummaryArguments<T> arguments(const ScanBackwardData<T>& data) const {
    const auto in = data.forward.arguments();
    SsdScanSummaryArguments<T> a;
    a.x = in.x;
    a.dt = in.dt;
    a.A = in.A;
    a.B = in.B;
    a.dt_bias = in.dt_bias;
    a.initial_states = in.initial_states;
    a.own_states = own(forward);
    a.log_alphas = log_alphas(forward);
    return a;
  }
  [[nodiscard]] SsdScanSummaryBackwardArguments<T> backward_arguments(const ScanBackwardData<T>& data) const {
    const auto in = data.forward.arguments();
    SsdScanSummaryBackwardArguments<T> a;
    a.dt = in.dt;
    a.A = in.A;
    a.C = in.C;
    a.dt_bias = in.dt_bias;
    a.dout = data.dout;
    if (data.dfinal_states.is_allocated()) a.dfinal_states = data.dfinal_states;
    a.own_gradients = own(backward);
    a.log_alphas = log_alphas(backward);
    return a;
  }

  /// Both summaries, with a map from runs to slots unless it is empty.
  void run(const ScanBackwardData<T>& data, const SequenceRuns& runs, const std::vector<double>& slots = {}) const {
    const Exec exec;
    const SsdScanPlan<T> plan(exec, shape, options, tiling);
    auto a = arguments(data);
    auto b = backward_arguments(data);
    const Kokkos::View<std::int64_t*> map("slots", slots.size());
    krait::test::assign(map, slots);
    if (!slots.empty()) {
      a.slots = map;
      b.slots = map;
    }
    krait::ssd_scan_summarize(exec, plan, a, runs);
    krait::ssd_scan_summarize_backward(exec, plan, b, runs);
    exec.fence("krait::test: summaries are ready");
  }
};

/// Sums of the log-decays of a run, of each head.
template <class T>
std::vector<double> log_alphas_of(const ScanData<T>& data, const Run& run) {
  const auto& in = data.truth;
  const std::int64_t H = in.heads;
  std::vector<double> sums(static_cast<std::size_t>(H), 0.0);
  for (std::int64_t t = run.begin; t < run.end; ++t) {
    for (std::size_t h = 0; h < sums.size(); ++h) {
      const auto token = static_cast<std::size_t>((run.row * data.setup.shape.length + t) * H);
      sums[h] += krait::reference::softplus(in.dt[token + h] + in.dt_bias[h]) * in.A[h];
    }
  }
  return sums;
}

/// Runs of length 0, 1, 2 and more, padding, states out of order, and a row without runs.
SequenceRuns mixed_runs() {
  return SequenceRuns(3, 50,
                      {{0, 0, 0, 8},
                       {0, 2, 3, 7},
                       {0, 3, 5, 6},
                       {0, 5, 22, 5},
                       {0, 25, 25, 4},
                       {0, 25, 46, 3},
                       {2, 0, 50, 1},
                       {2, 50, 50, 0}},
                      9);
}

template <class T>
class SsdScanSummary : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16>;
TYPED_TEST_SUITE(SsdScanSummary, Scalars);

TYPED_TEST(SsdScanSummary, MatchesTheRecurrenceInAnySegmentsAndChunks) {
  using V = krait::accumulator_t<TypeParam>;
  const SequenceRuns runs = mixed_runs();
  for (const Decay decay : {Decay::slow, Decay::mixed}) {
    for (const std::int64_t segments : {1, 2, 3, 5, 50}) {
      for (const std::int64_t chunk : {3, 8, 64}) {
        SCOPED_TRACE(testing::Message() << "segments " << segments << ", chunk " << chunk);
        ScanBackwardSetup setup = setup_of(decay, 3, 50);
        setup.forward.options.segments = segments;
        setup.forward.options.chunk_size = chunk;
        const ScanBackwardData<TypeParam> data(setup, runs);
        Summary<TypeParam> summary(data, 9);
        summary.tiling.head_tile = 3;
        summary.run(data, runs);
        // State 2 belongs to no run.
        auto want = krait::reference::ssd_scan(data.forward.truth, runs).final_states;
        auto want_back = krait::reference::ssd_scan_backward(data.forward.truth, runs, values_of(data.dout),
                                                             values_of(data.dfinal_states))
                             .initial_states;
        for (std::int64_t i = 2 * summary.size(); i < 3 * summary.size(); ++i) {
          want[static_cast<std::size_t>(i)] = want_back[static_cast<std::size_t>(i)] = std::nan("");
        }
        EXPECT_TRUE(all_close(summary.own(summary.forward), want, krait::test::accumulated_tolerance<TypeParam>()));
        EXPECT_TRUE(
            all_close(summary.own(summary.backward), want_back, krait::test::accumulated_tolerance<TypeParam>()));
        const auto log_alphas = values_of(summary.log_alphas(summary.forward));
        const auto log_alphas_back = values_of(summary.log_alphas(summary.backward));
        const double limit = std::is_same_v<V, double> ? -746 : -104;
        for (const Run& run : runs.host()) {
          const auto expected = log_alphas_of(data.forward, run);
          for (std::size_t h = 0; h < 3; ++h) {
            const auto place = static_cast<std::size_t>(run.state) * 3 + h;
            for (const double got : {log_alphas[place], log_alphas_back[place]}) {
              // Where exp() is 0, any sum that says so will do.
              if (expected[h] < limit && got < limit) continue;
              EXPECT_NEAR(got, expected[h], std::abs(expected[h]) * (std::is_same_v<V, double> ? 1e-13 : 1e-5));
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(SsdScanSummary, SlotsAreOfRunsAndTheOthersStay) {
  const SequenceRuns runs(2, 40, {{0, 3, 11, 1}, {0, 11, 40, Run::no_state}, {1, 0, 30, Run::no_state}, {1, 30, 40, 0}},
                          2);
  const ScanBackwardData<TypeParam> data(setup_of(Decay::slow, 2, 40), runs);
  Summary<TypeParam> by_slots(data, 6), by_states(data, 2);
  by_slots.run(data, runs, {5, 0, static_cast<double>(Run::no_state), 3});
  by_states.run(data, runs);
  const auto row = [](const auto& slots, int i) { return Kokkos::subview(slots, i, Kokkos::ALL); };
  EXPECT_TRUE(same(row(by_slots.forward, 5), row(by_states.forward, 1)));
  EXPECT_TRUE(same(row(by_slots.forward, 3), row(by_states.forward, 0)));
  EXPECT_TRUE(same(row(by_slots.backward, 5), row(by_states.backward, 1)));
  EXPECT_TRUE(same(row(by_slots.backward, 3), row(by_states.backward, 0)));
  for (const int slot : {1, 2, 4}) {
    for (const auto& slots : std::array{by_slots.forward, by_slots.backward}) {
      for (const double value : values_of(row(slots, slot))) EXPECT_TRUE(std::isnan(value));
    }
  }
  // The run without a state, in slot 0, enters with zero.
  ScanBackwardSetup setup = setup_of(Decay::slow, 2, 40);
  setup.forward.initial_states = false;
  setup.final_states = false;
  const SequenceRuns alone(2, 40, {{0, 11, 40, 0}}, 1);
  const ScanBackwardData<TypeParam> from_zero(setup, alone);
  Summary<TypeParam> zero(from_zero, 1);
  zero.run(from_zero, alone);
  EXPECT_TRUE(same(row(by_slots.forward, 0), row(zero.forward, 0)));
  EXPECT_TRUE(same(row(by_slots.backward, 0), row(zero.backward, 0)));
}

/// Head 1 forgets within a few chunks, heads 0 and 2 never do.
template <class T>
ScanBackwardData<T> mixed_heads(const SequenceRuns& runs, std::int64_t segments) {
  ScanBackwardSetup setup = setup_of(Decay::slow, 1, runs.length());
  setup.forward.options.segments = segments;
  ScanBackwardData<T> data(setup, runs);
  auto rates = values_of(data.forward.A);
  rates[1] = -60;  // with steps of about 0.1: 6 per token, so less than -104 in 3 chunks of 8, -746 in 16
  krait::test::assign(data.forward.A, rates);
  data.forward.copy_to_truth();
  return data;
}

/// Bits of one head.
template <class View>
std::vector<double> of_head(const View& own, int head) {
  return values_of(Kokkos::subview(own, 0, head, Kokkos::ALL, Kokkos::ALL));
}

constexpr std::int64_t long_length = 400;

/// Poison in all that is not a step, at tokens from which nothing reaches the end: it is not read, and the bits are
/// those of a run that begins behind it.
TYPED_TEST(SsdScanSummary, WhatCannotReachTheEndIsNotRead) {
  using V = krait::accumulator_t<TypeParam>;
  constexpr std::int64_t tail = std::is_same_v<TypeParam, double> ? 160 : 32;
  for (const std::int64_t segments : {1, 2}) {
    SCOPED_TRACE(segments);
    const auto whole = SequenceRuns::whole_rows(1, long_length);
    const SequenceRuns short_run(1, long_length, {{0, long_length - tail, long_length, Run::no_state}}, 1);
    const auto data = mixed_heads<TypeParam>(whole, segments);
    Summary<TypeParam> clean(data, 1), late(data, 1), poisoned(data, 1);
    clean.run(data, whole);
    late.run(data, short_run, {0});
    const auto early = Kokkos::make_pair(std::int64_t(0), long_length - tail);
    krait::test::poison(Kokkos::subview(data.forward.x, Kokkos::ALL, early, Kokkos::ALL, Kokkos::ALL));
    krait::test::poison(Kokkos::subview(data.forward.B, Kokkos::ALL, early, Kokkos::ALL, Kokkos::ALL));
    krait::test::poison(data.forward.initial_states);
    poisoned.run(data, whole);
    const auto own = [](const Summary<TypeParam>& s) { return s.own(s.forward); };
    EXPECT_EQ(of_head(own(clean), 1), of_head(own(late), 1));
    EXPECT_EQ(of_head(own(clean), 1), of_head(own(poisoned), 1));
    EXPECT_TRUE(std::isnan(of_head(own(poisoned), 0)[0])) << "of a slow head everything is read";
    const auto want = krait::reference::ssd_scan(data.forward.truth, whole).final_states;
    EXPECT_TRUE(all_close(own(clean), want, krait::test::accumulated_tolerance<TypeParam>()));
    const auto log_alphas = values_of(clean.log_alphas(clean.forward));
    EXPECT_EQ(std::exp(static_cast<V>(log_alphas[1])), V(0));
    EXPECT_NEAR(log_alphas[0], log_alphas_of(data.forward, whole.host()[0])[0], 1e-4);
  }
}

TYPED_TEST(SsdScanSummary, GradientsThatCannotReachTheBeginningAreNotRead) {
  using V = krait::accumulator_t<TypeParam>;
  constexpr std::int64_t head = std::is_same_v<TypeParam, double> ? 160 : 32;
  for (const std::int64_t segments : {1, 2}) {
    SCOPED_TRACE(segments);
    const auto whole = SequenceRuns::whole_rows(1, long_length);
    const SequenceRuns short_run(1, long_length, {{0, 0, head, Run::no_state}}, 1);
    const auto data = mixed_heads<TypeParam>(whole, segments);
    Summary<TypeParam> clean(data, 1), early(data, 1), poisoned(data, 1);
    clean.run(data, whole);
    early.run(data, short_run, {0});
    const auto want = krait::reference::ssd_scan_backward(data.forward.truth, whole, values_of(data.dout),
                                                          values_of(data.dfinal_states));
    const auto late = Kokkos::make_pair(head, long_length);
    krait::test::poison(Kokkos::subview(data.dout, Kokkos::ALL, late, Kokkos::ALL, Kokkos::ALL));
    krait::test::poison(Kokkos::subview(data.forward.C, Kokkos::ALL, late, Kokkos::ALL, Kokkos::ALL));
    krait::test::poison(data.dfinal_states);
    poisoned.run(data, whole);
    const auto own = [](const Summary<TypeParam>& s) { return s.own(s.backward); };
    EXPECT_EQ(of_head(own(clean), 1), of_head(own(early), 1));
    EXPECT_EQ(of_head(own(clean), 1), of_head(own(poisoned), 1));
    EXPECT_TRUE(std::isnan(of_head(own(poisoned), 0)[0])) << "of a slow head everything is read";
    EXPECT_TRUE(all_close(own(clean), want.initial_states, krait::test::accumulated_tolerance<TypeParam>()));
    EXPECT_EQ(std::exp(static_cast<V>(values_of(clean.log_alphas(clean.backward))[1])), V(0));
  }
}

/// A row in three pieces: the states between them are composed from the summaries, and each piece is then an ordinary
/// scan, forward and backward. Together they give what the whole row gives.
TYPED_TEST(SsdScanSummary, ComposesToTheWholeScan) {
  using V = krait::accumulator_t<TypeParam>;
  constexpr std::int64_t length = 60;
  for (const Decay decay : {Decay::slow, Decay::model, Decay::mixed}) {
    const ScanBackwardSetup setup = setup_of(decay, 1, length);
    const auto whole_run = SequenceRuns::whole_rows(1, length);
    const ScanBackwardData<TypeParam> whole(setup, whole_run);
    krait::test::run_scan(whole.forward, whole_run);
    krait::test::run_scan_backward(whole, whole_run);

    // The same tensors with the pieces as runs. Only the first has an initial state of its own, only the last a
    // gradient of its final one.
    const SequenceRuns pieces(1, length, {{0, 0, 20, 0}, {0, 20, 27, 1}, {0, 27, length, 2}}, 3);
    const ScanBackwardData<TypeParam> data(setup, pieces);
    const SequenceRuns first_has_state(1, length, {{0, 0, 20, 0}, {0, 20, 27, -1}, {0, 27, length, -1}}, 3);
    const SequenceRuns last_has_state(1, length, {{0, 0, 20, -1}, {0, 20, 27, -1}, {0, 27, length, 2}}, 3);
    const auto copy = [](const auto& to, int place, const auto& from) {
      krait::test::assign(Kokkos::subview(to, place, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL), values_of(from));
    };
    copy(data.forward.initial_states, 0, whole.forward.initial_states);
    copy(data.dfinal_states, 2, whole.dfinal_states);
    Summary<TypeParam> forward(data, 3), backward(data, 3);
    forward.run(data, first_has_state, {0, 1, 2});
    backward.run(data, last_has_state, {0, 1, 2});

    const auto E = values_of(forward.own(forward.forward)), G = values_of(backward.own(backward.backward));
    // Where alpha is 0, its logarithm need not be the same from both ends.
    const auto alphas_of = [](const auto& log_alphas) {
      auto alphas = values_of(log_alphas);
      for (double& alpha : alphas) alpha = std::exp(alpha);
      return alphas;
    };
    const auto alphas = alphas_of(forward.log_alphas(forward.forward));
    EXPECT_TRUE(all_close(alphas_of(backward.log_alphas(backward.backward)), alphas, tolerance<V>()));
    const auto size = static_cast<std::size_t>(forward.size());
    auto entering = values_of(data.forward.initial_states), leaving = values_of(data.dfinal_states);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t h = i / (size / 3);
      // What enters piece 0 is its own initial state and part of its E; so for what leaves piece 2.
      entering[size + i] = E[i];
      entering[2 * size + i] = alphas[3 + h] * E[i] + E[size + i];
      leaving[size + i] = G[2 * size + i];
      leaving[i] = alphas[3 + h] * G[2 * size + i] + G[size + i];
    }
    krait::test::assign(data.forward.initial_states, entering);
    krait::test::assign(data.dfinal_states, leaving);
    krait::test::run_scan(data.forward, pieces);
    krait::test::run_scan_backward(data, pieces);
    EXPECT_TRUE(all_close(data.forward.out, whole.forward.out, tolerance<TypeParam>()));
    for (const auto& [name, got, want] :
         std::array{std::tuple{"dx", data.dx, whole.dx}, std::tuple{"dB", data.dB, whole.dB},
                    std::tuple{"dC", data.dC, whole.dC}}) {
      EXPECT_TRUE(all_close(got, want, krait::test::stored_tolerance<TypeParam>())) << name;
    }
    EXPECT_TRUE(all_close(data.ddt, whole.ddt, tolerance<TypeParam>()));
    EXPECT_TRUE(all_close(data.dA, whole.dA, krait::test::accumulated_tolerance<TypeParam>()));
    const auto all = Kokkos::ALL;
    EXPECT_TRUE(all_close(values_of(Kokkos::subview(data.forward.final_states, 2, all, all, all)),
                          values_of(whole.forward.final_states), krait::test::accumulated_tolerance<TypeParam>()));
    EXPECT_TRUE(all_close(values_of(Kokkos::subview(data.dinitial_states, 0, all, all, all)),
                          values_of(whole.dinitial_states), krait::test::accumulated_tolerance<TypeParam>()));
  }
}

TEST(SsdScanSummaryContract, ReadsStepsAndGradientsAtTheirPlaces) {
  const SequenceRuns runs(1, 20, {{0, 2, 19, 0}}, 1);
  const ScanBackwardData<float> data(setup_of(Decay::slow, 1, 20), runs);
  Summary<float> want(data, 1), got(data, 1);
  want.run(data, runs);
  // Token t of dt and of dout lies at 7 t modulo 23.
  const Kokkos::View<std::int64_t*> map("map", 20);
  const ScanData<float>::View<float***> dt("dt", 1, 23, 3);
  const ScanData<float>::View<float****> dout("dout", 1, 23, 3, 5);
  krait::test::poison(dt);
  krait::test::poison(dout);
  std::vector<double> places;
  const auto all = Kokkos::ALL;
  for (std::int64_t t = 0; t < 20; ++t) {
    const std::int64_t place = 7 * t % 23;
    places.push_back(static_cast<double>(place));
    krait::test::assign(Kokkos::subview(dt, all, place, all), values_of(Kokkos::subview(data.forward.dt, all, t, all)));
    krait::test::assign(Kokkos::subview(dout, all, place, all, all),
                        values_of(Kokkos::subview(data.dout, all, t, all, all)));
  }
  krait::test::assign(map, places);
  const Exec exec;
  const SsdScanPlan<float> plan(exec, got.shape, got.options);
  auto a = got.arguments(data);
  a.dt = dt;
  a.dt_map = map;
  krait::ssd_scan_summarize(exec, plan, a, runs);
  auto b = got.backward_arguments(data);
  b.dt = dt;
  b.dt_map = map;
  b.dout = dout;
  b.out_map = map;
  krait::ssd_scan_summarize_backward(exec, plan, b, runs);
  EXPECT_TRUE(same(got.forward, want.forward));
  EXPECT_TRUE(same(got.backward, want.backward));
}

TEST(SsdScanSummaryContract, NeitherAllocatesNorFencesAndNamesItsPath) {
  ScanBackwardSetup setup = setup_of(Decay::slow, 3, 50);
  setup.forward.options.segments = 3;
  const SequenceRuns runs = mixed_runs();
  const ScanBackwardData<float> data(setup, runs);
  const Summary<float> summary(data, 9);
  const Exec exec;
  const SsdScanPlan<float> plan(exec, summary.shape, summary.options);
  const auto call = [&] {
    krait::ssd_scan_summarize(exec, plan, summary.arguments(data), runs);
    krait::ssd_scan_summarize_backward(exec, plan, summary.backward_arguments(data), runs);
  };
  call();
  exec.fence();
  krait::test::CallbackRecorder recorder;
  call();
  EXPECT_THAT(recorder.allocations(), IsEmpty());
  EXPECT_THAT(recorder.copies(), IsEmpty());
  EXPECT_THAT(recorder.foreign_labels(), IsEmpty());
  for (const auto& fence : recorder.fences()) EXPECT_THAT(fence.label, Not(HasSubstr("krait"))) << fence.label;
  EXPECT_EQ(recorder.kernels().size(), 6U);
  EXPECT_THAT(recorder.regions(),
              testing::ElementsAre(AllOf(StartsWith("krait::ssd_scan_summarize["), HasSubstr(",float]")),
                                   AllOf(StartsWith("krait::ssd_scan_summarize_backward["), HasSubstr(",float]"))));
}

TEST(SsdScanSummaryContract, NoRunsAreNoWork) {
  const SequenceRuns runs(3, 50, {}, 2);
  const ScanBackwardData<float> data(setup_of(Decay::slow, 3, 50), runs);
  Summary<float> summary(data, 2);
  summary.run(data, runs);
  for (const auto& slots : {summary.forward, summary.backward}) {
    for (const double value : values_of(slots)) EXPECT_TRUE(std::isnan(value));
  }
}

template <class Change>
auto forward_with(const Change& change) {
  return [change] {
    const ScanBackwardData<float> data(setup_of(Decay::slow, 3, 50), mixed_runs());
    const Summary<float> summary(data, 9);
    auto arguments = summary.arguments(data);
    change(arguments);
    krait::ssd_scan_summarize(Exec(), SsdScanPlan<float>(Exec(), summary.shape), arguments, mixed_runs());
  };
}

template <class Change>
auto backward_with(const Change& change) {
  return [change] {
    const ScanBackwardData<float> data(setup_of(Decay::slow, 3, 50), mixed_runs());
    const Summary<float> summary(data, 9);
    auto arguments = summary.backward_arguments(data);
    change(arguments);
    krait::ssd_scan_summarize_backward(Exec(), SsdScanPlan<float>(Exec(), summary.shape), arguments, mixed_runs());
  };
}

TEST(SsdScanSummaryErrors, EveryExtentIsChecked) {
  const auto says = [](const char* text) { return ThrowsMessage<ShapeError>(HasSubstr(text)); };
  const Kokkos::View<float*> one("v", 4);
  const Kokkos::View<float**, Kokkos::LayoutRight> two("v", 4, 4);
  const Kokkos::View<float***, Kokkos::LayoutRight> three("v", 4, 4, 4);
  const Kokkos::View<float****, Kokkos::LayoutRight> four("v", 4, 4, 4, 4);
  const Kokkos::View<std::int64_t*> map("v", 4);
  const auto expect_both = [&](const auto& change, const char* text) {
    EXPECT_THAT(forward_with(change), says((std::string("krait::ssd_scan_summarize: ") + text).c_str()));
    EXPECT_THAT(backward_with(change), says((std::string("krait::ssd_scan_summarize_backward: ") + text).c_str()));
  };
  expect_both([=](auto& a) { a.dt = three; }, "dt is (4, 4, 4), expected (3, 50, 3)");
  expect_both([=](auto& a) { a.A = one; }, "A is (4), expected (3)");
  expect_both([=](auto& a) { a.dt_bias = one; }, "dt_bias is (4), expected (3)");
  expect_both([=](auto& a) { a.dt_map = map; }, "dt_map is (4), expected (50)");
  expect_both([=](auto& a) { a.slots = map; }, "slots is (4), expected (8)");
  expect_both([=](auto& a) { a.log_alphas = two; }, "log_alphas is (4, 4), expected (9, 3)");
  EXPECT_THAT(forward_with([=](auto& a) { a.x = four; }), says("x is (4, 4, 4, 4), expected (3, 50, 3, 5)"));
  EXPECT_THAT(forward_with([=](auto& a) { a.B = four; }), says("B is (4, 4, 4, 4), expected (3, 50, 1, 6)"));
  EXPECT_THAT(forward_with([=](auto& a) { a.initial_states = four; }),
              says("initial_states is (4, 4, 4, 4), expected (9, 3, 5, 6)"));
  EXPECT_THAT(forward_with([=](auto& a) { a.own_states = {}; }),
              says("own_states is (0, 0, 0, 0), expected (9, 3, 5, 6)"));
  EXPECT_THAT(backward_with([=](auto& a) { a.dout = four; }), says("dout is (4, 4, 4, 4), expected (3, 50, 3, 5)"));
  EXPECT_THAT(backward_with([=](auto& a) { a.out_map = map; }), says("out_map is (4), expected (50)"));
  EXPECT_THAT(backward_with([=](auto& a) { a.C = four; }), says("C is (4, 4, 4, 4), expected (3, 50, 1, 6)"));
  EXPECT_THAT(backward_with([=](auto& a) { a.dfinal_states = four; }),
              says("dfinal_states is (4, 4, 4, 4), expected (9, 3, 5, 6)"));
  EXPECT_THAT(backward_with([=](auto& a) { a.own_gradients = {}; }),
              says("own_gradients is (0, 0, 0, 0), expected (9, 3, 5, 6)"));
  const auto other_rows = [] {
    const ScanBackwardData<float> data(setup_of(Decay::slow, 3, 50), mixed_runs());
    const Summary<float> summary(data, 2);
    krait::ssd_scan_summarize(Exec(), SsdScanPlan<float>(Exec(), summary.shape), summary.arguments(data),
                              SequenceRuns::whole_rows(2, 50));
  };
  EXPECT_THAT(other_rows, says("runs are of 2 rows of 50 tokens, expected 3 rows of 50"));
}

}  // namespace
