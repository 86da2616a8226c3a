// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>
#include <krait/reference/causal_conv1d_backward.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>
#include <support/finite_differences.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::SequenceRuns;
using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::poisoned_view;
using krait::test::random_strided_view;
using krait::test::random_view;
using krait::test::same;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// How initial states and gradients of final states are stored, if they are given.
enum class States { none, narrow, wide };

/// Owns what the arguments point to. Gradients of parameters begin at what others have added.
template <class T>
struct ConvBackward {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> x, dout, dx;
  Kokkos::View<A**> weight, dweight;
  Kokkos::View<A*> bias, dbias;
  Kokkos::View<T***> narrow_initial, narrow_dfinal;
  Kokkos::View<A***> wide_initial, wide_dfinal, dinitial;
  Kokkos::View<std::int64_t*> x_map;
  Kokkos::View<std::byte*> workspace;
  std::vector<double> dweight_before, dbias_before;
  bool silu = true;

  ConvBackward(const SequenceRuns& runs, std::int64_t channels, std::int64_t taps, States states = States::narrow,
               Arrangement arrangement = Arrangement::features_last)
      : x(random_strided_view<T>(arrangement, 1, runs.rows(), runs.length(), channels)),
        dout(random_strided_view<T>(arrangement, 2, runs.rows(), runs.length(), channels)),
        dx(krait::test::strided_view<T>(arrangement, runs.rows(), runs.length(), channels)),
        weight(random_view<Kokkos::View<A**>>(3, channels, taps)),
        dweight(random_view<Kokkos::View<A**>>(4, channels, taps)),
        bias(random_view<Kokkos::View<A*>>(5, channels)),
        dbias(random_view<Kokkos::View<A*>>(6, channels)),
        dinitial(poisoned_view<Kokkos::View<A***>>(runs.states(), channels, taps - 1)),
        workspace(Kokkos::view_alloc("krait::test::workspace", Kokkos::WithoutInitializing),
                  krait::causal_conv1d_backward_workspace_bytes<T, Exec>(runs.rows(), runs.length(), channels, taps)),
        dweight_before(values_of(dweight)),
        dbias_before(values_of(dbias)) {
    if (states == States::narrow) {
      narrow_initial = random_view<Kokkos::View<T***>>(7, runs.states(), channels, taps - 1);
      narrow_dfinal = random_view<Kokkos::View<T***>>(8, runs.states(), channels, taps - 1);
    } else if (states == States::wide) {
      wide_initial = random_view<Kokkos::View<A***>>(7, runs.states(), channels, taps - 1);
      wide_dfinal = random_view<Kokkos::View<A***>>(8, runs.states(), channels, taps - 1);
    }
  }

  [[nodiscard]] krait::CausalConv1dBackwardArguments<T> arguments() const {
    krait::CausalConv1dBackwardArguments<T> result;
    result.x = x;
    result.weight = weight;
    result.bias = bias;
    if (narrow_initial.data() != nullptr) result.initial_states = narrow_initial;
    if (wide_initial.data() != nullptr) result.initial_states = wide_initial;
    result.activation = silu ? krait::Activation::silu : krait::Activation::none;
    result.x_map = x_map;
    result.dout = dout;
    if (narrow_dfinal.data() != nullptr) result.dfinal_states = narrow_dfinal;
    if (wide_dfinal.data() != nullptr) result.dfinal_states = wide_dfinal;
    result.dx = dx;
    result.dweight = dweight;
    result.dbias = dbias;
    result.dinitial_states = dinitial;
    result.workspace = workspace;
    return result;
  }

  void run(const SequenceRuns& runs, const Exec& exec = Exec()) const {
    krait::test::assign(dweight, dweight_before);
    if (dbias.data() != nullptr) krait::test::assign(dbias, dbias_before);
    krait::causal_conv1d_backward<T>(exec, arguments(), runs);
  }

  /// What the call adds to the gradient of a parameter.
  template <class View>
  [[nodiscard]] static std::vector<double> added(const View& gradient, const std::vector<double>& before) {
    auto values = values_of(gradient);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= before[i];
    return values;
  }

  void expect(const krait::reference::CausalConv1dGradients& want) const {
    EXPECT_TRUE(all_close(dx, want.x, krait::test::tolerance<T>()));
    EXPECT_TRUE(all_close(dinitial, want.initial, krait::test::tolerance<A>()));
    EXPECT_TRUE(all_close(added(dweight, dweight_before), want.weight, parameter_tolerance(), {}));
    if (dbias.data() != nullptr) {
      EXPECT_TRUE(all_close(added(dbias, dbias_before), want.bias, parameter_tolerance(), {}));
    }
  }

  void expect_reference(const SequenceRuns& runs) const {
    const auto x_values = values_of(x);
    const auto w = values_of(weight);
    const auto b = values_of(bias);
    const auto initial = narrow_initial.data() != nullptr ? values_of(narrow_initial) : values_of(wide_initial);
    const auto dfinal = narrow_dfinal.data() != nullptr ? values_of(narrow_dfinal) : values_of(wide_dfinal);
    const krait::reference::CausalConv1d forward{static_cast<std::int64_t>(weight.extent(0)),
                                                 static_cast<std::int64_t>(weight.extent(1)),
                                                 silu,
                                                 x_values,
                                                 w,
                                                 b,
                                                 initial};
    run(runs);
    expect(krait::reference::causal_conv1d_backward(forward, runs, values_of(dout), dfinal));
  }

 private:
  /// The sum is formed beside what was there before; subtracting that again loses digits of a small sum.
  [[nodiscard]] static krait::test::Tolerance parameter_tolerance() {
    auto result = krait::test::tolerance<A>();
    result.absolute = std::is_same_v<A, double> ? 1e-15 : 1e-6;
    if constexpr (std::is_same_v<A, double>) result.nmse = 1e-22;
    return result;
  }
};

/// Three rows: runs of 0, 1 and 2 tokens and longer ones, padding before, between and behind them; an empty row. State
/// 7 belongs to no run.
SequenceRuns packed_runs() {
  return {
      3, 40, {{0, 2, 2, 3}, {0, 2, 3, 0}, {0, 3, 5, 1}, {0, 5, 5, 2}, {0, 5, 23, 4}, {0, 30, 39, 5}, {2, 0, 40, 6}}, 8};
}

/// Runs without a state, empty, short and long, among others: their states are neither read nor written.
SequenceRuns runs_without_states() {
  constexpr std::int64_t none = krait::Run::no_state;
  return {2,
          40,
          {{0, 0, 0, none},
           {0, 2, 3, none},
           {0, 3, 3, 2},
           {0, 3, 5, 0},
           {0, 5, 23, none},
           {0, 30, 39, 1},
           {1, 0, 40, none}},
          3};
}

template <class T>
class CausalConv1dBackward : public testing::Test {};
TYPED_TEST_SUITE(CausalConv1dBackward, Scalars);

TYPED_TEST(CausalConv1dBackward, EveryWidthAndStateMatchesTheReference) {
  for (const std::int64_t taps : {1, 2, 3, 4, 5, 8, 15, 16}) {
    for (const States states : {States::none, States::narrow, States::wide}) {
      for (const bool silu : {true, false}) {
        SCOPED_TRACE(testing::Message() << taps << ' ' << static_cast<int>(states) << ' ' << silu);
        ConvBackward<TypeParam> conv(packed_runs(), 5, taps, taps == 1 ? States::none : states);
        conv.silu = silu;
        conv.expect_reference(packed_runs());
      }
    }
  }
}

TYPED_TEST(CausalConv1dBackward, RunsWithoutStates) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t taps : {2, 4, 7}) {
      SCOPED_TRACE(static_cast<int>(arrangement));
      ConvBackward<TypeParam>(runs_without_states(), 5, taps, States::narrow, arrangement)
          .expect_reference(runs_without_states());
    }
  }
}

TYPED_TEST(CausalConv1dBackward, EveryArrangementMatchesTheReference) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t taps : {2, 3, 4, 7}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(arrangement) << ' ' << taps);
      ConvBackward<TypeParam>(packed_runs(), 33, taps, States::narrow, arrangement).expect_reference(packed_runs());
      ConvBackward<TypeParam>(packed_runs(), 40, taps, States::narrow, arrangement).expect_reference(packed_runs());
      ConvBackward<TypeParam>(packed_runs(), 16, taps, States::wide, arrangement).expect_reference(packed_runs());
    }
  }
}

TYPED_TEST(CausalConv1dBackward, LengthsAroundTheWidthAndTheBlocks) {
  for (const std::int64_t length : {0, 1, 2, 3, 4, 15, 16, 17, 127, 128, 129, 255, 256, 257, 258, 1025}) {
    for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
      SCOPED_TRACE(testing::Message() << length << ' ' << static_cast<int>(arrangement));
      const auto runs = SequenceRuns::whole_rows(2, length);
      ConvBackward<TypeParam>(runs, 3, 4, States::narrow, arrangement).expect_reference(runs);
      ConvBackward<TypeParam>(runs, 8, 4, States::narrow, arrangement).expect_reference(runs);
    }
  }
}

TYPED_TEST(CausalConv1dBackward, RunsThatEndAroundTheBlocks) {
  for (const std::int64_t cut : {253, 254, 255, 256, 257, 258, 259}) {
    SCOPED_TRACE(cut);
    const SequenceRuns runs(1, 520, {{0, 0, cut, 0}, {0, cut, cut + 1, 1}, {0, cut + 1, 515, 2}}, 3);
    for (const std::int64_t taps : {4, 6}) ConvBackward<TypeParam>(runs, 3, taps).expect_reference(runs);
  }
}

TYPED_TEST(CausalConv1dBackward, ChannelsAroundTheBlocks) {
  for (const std::int64_t channels : {0, 1, 7, 63, 64, 65, 127, 129, 300, 1030}) {
    SCOPED_TRACE(channels);
    const auto runs = SequenceRuns::whole_rows(1, 20);
    ConvBackward<TypeParam>(runs, channels, 4).expect_reference(runs);
  }
}

TYPED_TEST(CausalConv1dBackward, OptionalPartsMayBeMissing) {
  const auto runs = packed_runs();
  ConvBackward<TypeParam> conv(runs, 6, 4, States::none);
  conv.bias = {};
  conv.dbias = {};
  conv.expect_reference(runs);
  // Without gradients of parameters there is nothing to keep in a workspace.
  auto arguments = conv.arguments();
  const auto want = values_of(conv.dx);
  krait::test::poison(conv.dx);
  arguments.dweight = {};
  arguments.dinitial_states = {};
  arguments.workspace = {};
  krait::causal_conv1d_backward<TypeParam>(Exec(), arguments, runs);
  EXPECT_TRUE(all_close(conv.dx, want, krait::test::exact()));
}

TYPED_TEST(CausalConv1dBackward, InputsAreReadAndGradientsStoredThroughTheMap) {
  const auto runs = packed_runs();
  const std::int64_t places = runs.length() + 5;
  const auto place = [&](std::int64_t t) { return (7 * t + 3) % places; };
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const ConvBackward<TypeParam> plain(runs, 9, 4, States::narrow, arrangement);
    plain.run(runs);
    ConvBackward<TypeParam> mapped(runs, 9, 4, States::narrow, arrangement);
    // The places of no token hold NaN, and are left alone.
    const auto inputs = values_of(plain.x);
    const auto gradients = values_of(plain.dx);
    const auto size = static_cast<std::size_t>(runs.rows() * places * 9);
    std::vector<double> map;
    std::vector<double> stored(size, std::numeric_limits<double>::quiet_NaN());
    std::vector<double> want(size, std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t t = 0; t < runs.length(); ++t) {
      map.push_back(static_cast<double>(place(t)));
      for (std::int64_t row = 0; row < runs.rows(); ++row) {
        for (std::int64_t c = 0; c < 9; ++c) {
          const auto from = static_cast<std::size_t>((row * runs.length() + t) * 9 + c);
          const auto to = static_cast<std::size_t>((row * places + place(t)) * 9 + c);
          stored[to] = inputs[from];
          want[to] = gradients[from];
        }
      }
    }
    mapped.x_map = Kokkos::View<std::int64_t*>("krait::test::map", static_cast<std::size_t>(runs.length()));
    krait::test::assign(mapped.x_map, map);
    mapped.x = krait::test::strided_view<TypeParam>(arrangement, runs.rows(), places, 9);
    krait::test::assign(mapped.x, stored);
    mapped.dx = krait::test::strided_view<TypeParam>(arrangement, runs.rows(), places, 9);
    mapped.run(runs);
    EXPECT_TRUE(all_close(mapped.dx, want, krait::test::exact()));
    EXPECT_TRUE(same(mapped.dinitial, plain.dinitial));
    EXPECT_TRUE(same(mapped.dweight, plain.dweight));
    EXPECT_TRUE(same(mapped.dbias, plain.dbias));
  }
}

TYPED_TEST(CausalConv1dBackward, PaddingIsInert) {
  const auto runs = packed_runs();
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const ConvBackward<TypeParam> clean(runs, 4, 4, States::narrow, arrangement);
    clean.run(runs);
    const ConvBackward<TypeParam> dirty(runs, 4, 4, States::narrow, arrangement);
    auto inputs = values_of(dirty.x);
    auto douts = values_of(dirty.dout);
    std::vector<bool> owned(120, false);
    for (const krait::Run& run : runs.host()) {
      for (std::int64_t t = run.begin; t < run.end; ++t) owned[static_cast<std::size_t>(run.row * 40 + t)] = true;
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!owned[i / 4]) inputs[i] = douts[i] = std::numeric_limits<double>::quiet_NaN();
    }
    krait::test::assign(dirty.x, inputs);
    krait::test::assign(dirty.dout, douts);
    dirty.run(runs);
    EXPECT_TRUE(same(dirty.dx, clean.dx));
    EXPECT_TRUE(same(dirty.dinitial, clean.dinitial));
    EXPECT_TRUE(same(dirty.dweight, clean.dweight));
    EXPECT_TRUE(same(dirty.dbias, clean.dbias));
    const auto gradients = values_of(clean.dx);
    for (std::size_t i = 0; i < gradients.size(); ++i) EXPECT_TRUE(owned[i / 4] || gradients[i] == 0.0) << i;
  }
}

TYPED_TEST(CausalConv1dBackward, OneRunDoesNotSeeAnother) {
  const auto runs = packed_runs();
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const ConvBackward<TypeParam> clean(runs, 4, 4, States::narrow, arrangement);
    clean.run(runs);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    // NaN in all that belongs to the run [5, 23) of state 4: nothing but its gradients may change.
    const ConvBackward<TypeParam> dirty(runs, 4, 4, States::narrow, arrangement);
    auto inputs = values_of(dirty.x);
    auto douts = values_of(dirty.dout);
    auto initial = values_of(dirty.narrow_initial);
    auto dfinal = values_of(dirty.narrow_dfinal);
    auto want = values_of(clean.dx);
    auto want_initial = values_of(clean.dinitial);
    for (std::size_t i = 5 * 4; i < 23 * 4; ++i) inputs[i] = douts[i] = want[i] = nan;
    for (std::size_t i = 4 * 12; i < 5 * 12; ++i) initial[i] = dfinal[i] = want_initial[i] = nan;
    krait::test::assign(dirty.x, inputs);
    krait::test::assign(dirty.dout, douts);
    krait::test::assign(dirty.narrow_initial, initial);
    krait::test::assign(dirty.narrow_dfinal, dfinal);
    dirty.run(runs);
    EXPECT_TRUE(all_close(dirty.dx, want, krait::test::exact()));
    EXPECT_TRUE(all_close(dirty.dinitial, want_initial, krait::test::exact()));
  }
}

TYPED_TEST(CausalConv1dBackward, PackedRunsEqualSeparateCalls) {
  using A = krait::accumulator_t<TypeParam>;
  const auto runs = packed_runs();
  const ConvBackward<TypeParam> packed(runs, 7, 4);
  packed.run(runs);
  std::vector<double> dweight(28, 0.0);
  std::vector<double> dbias(7, 0.0);
  const auto zero = [](std::vector<double>& values) { values.assign(values.size(), 0.0); };
  for (const krait::Run& run : runs.host()) {
    const auto alone = SequenceRuns::whole_rows(1, run.end - run.begin);
    const auto row = Kokkos::make_pair(run.row, run.row + 1);
    const auto tokens = Kokkos::make_pair(run.begin, run.end);
    const auto state = Kokkos::make_pair(run.state, run.state + 1);
    ConvBackward<TypeParam> one(alone, 7, 4);
    one.x = Kokkos::subview(packed.x, row, tokens, Kokkos::ALL);
    one.dout = Kokkos::subview(packed.dout, row, tokens, Kokkos::ALL);
    one.narrow_initial = Kokkos::subview(packed.narrow_initial, state, Kokkos::ALL, Kokkos::ALL);
    one.narrow_dfinal = Kokkos::subview(packed.narrow_dfinal, state, Kokkos::ALL, Kokkos::ALL);
    zero(one.dweight_before);
    zero(one.dbias_before);
    one.run(alone);
    EXPECT_TRUE(same(one.dx, Kokkos::subview(packed.dx, row, tokens, Kokkos::ALL)));
    EXPECT_TRUE(same(one.dinitial, Kokkos::subview(packed.dinitial, state, Kokkos::ALL, Kokkos::ALL)));
    const auto w = values_of(one.dweight);
    const auto b = values_of(one.dbias);
    for (std::size_t i = 0; i < w.size(); ++i) dweight[i] += w[i];
    for (std::size_t i = 0; i < b.size(); ++i) dbias[i] += b[i];
  }
  const auto bound = std::is_same_v<A, double> ? krait::test::Tolerance{.nmse = 1e-24, .relative = 1e-12}
                                               : krait::test::tolerance<float>();
  EXPECT_TRUE(all_close(packed.added(packed.dweight, packed.dweight_before), dweight, bound));
  EXPECT_TRUE(all_close(packed.added(packed.dbias, packed.dbias_before), dbias, bound));
}

TYPED_TEST(CausalConv1dBackward, SplitThroughStatesIsTheSameBitForBit) {
  const auto whole = SequenceRuns::whole_rows(2, 50);
  for (const std::int64_t taps : {2, 4, 9}) {
    const ConvBackward<TypeParam> all(whole, 6, taps);
    all.run(whole);
    for (const std::int64_t cut : {0, 1, 2, 17, 49, 50}) {
      SCOPED_TRACE(testing::Message() << taps << ' ' << cut);
      const auto first_runs = SequenceRuns::whole_rows(2, cut);
      const auto second_runs = SequenceRuns::whole_rows(2, 50 - cut);
      const auto head = Kokkos::make_pair(std::int64_t{0}, cut);
      const auto tail = Kokkos::make_pair(cut, std::int64_t{50});
      const auto part = [&](const auto& view, const auto& tokens) {
        return Kokkos::subview(view, Kokkos::ALL, tokens, Kokkos::ALL);
      };
      // The state between the parts, by the forward.
      krait::CausalConv1dArguments<TypeParam> forward;
      const Kokkos::View<TypeParam***> state("krait::test::state", 2, 6, static_cast<std::size_t>(taps - 1));
      forward.x = part(all.x, head);
      forward.weight = all.weight;
      forward.initial_states = all.narrow_initial;
      const auto out = krait::test::strided_view<TypeParam>(Arrangement::features_last, 2, cut, 6);
      forward.out = out;
      forward.final_states = state;
      krait::causal_conv1d<TypeParam>(Exec(), forward, first_runs);
      Kokkos::fence();

      ConvBackward<TypeParam> second(second_runs, 6, taps);
      second.x = part(all.x, tail);
      second.dout = part(all.dout, tail);
      second.narrow_initial = state;
      second.run(second_runs);
      ConvBackward<TypeParam> first(first_runs, 6, taps);
      first.x = part(all.x, head);
      first.dout = part(all.dout, head);
      first.narrow_dfinal = {};
      first.wide_dfinal = second.dinitial;
      first.run(first_runs);
      EXPECT_TRUE(same(first.dx, part(all.dx, head)));
      EXPECT_TRUE(same(second.dx, part(all.dx, tail)));
      EXPECT_TRUE(same(first.dinitial, all.dinitial));
    }
  }
}

TYPED_TEST(CausalConv1dBackward, LargeInputsRaiseNoFloatingPointException) {
  const auto runs = SequenceRuns::whole_rows(1, 30);
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const ConvBackward<TypeParam> conv(runs, 17, 4, States::none, arrangement);
    krait::test::fill_normal(conv.x, 9, 0, 2000);
    conv.run(runs);
    EXPECT_EQ(krait::test::raised_exceptions([&] { conv.run(runs); }), "");
  }
}

TYPED_TEST(CausalConv1dBackward, SameBitsInManyCallsOnAnyNumberOfThreads) {
  const SequenceRuns runs(2, 1500, {{0, 0, 700, 0}, {0, 700, 1499, 1}, {1, 5, 1500, 2}}, 3);
  const auto threads = Kokkos::Experimental::partition_space(Exec(), 1, 1);
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const ConvBackward<TypeParam> conv(runs, 150, 4, States::narrow, arrangement);
    conv.run(runs);
    const std::vector want{values_of(conv.dx), values_of(conv.dweight), values_of(conv.dbias),
                           values_of(conv.dinitial)};
    for (int repeat = 0; repeat < 20; ++repeat) {
      conv.run(runs, repeat % 2 == 0 ? Exec() : threads[0]);
      EXPECT_EQ(values_of(conv.dx), want[0]);
      EXPECT_EQ(values_of(conv.dweight), want[1]);
      EXPECT_EQ(values_of(conv.dbias), want[2]);
      EXPECT_EQ(values_of(conv.dinitial), want[3]);
    }
  }
}

TEST(CausalConv1dBackwardByDifferences, EveryGradientOfTheForwardKernel) {
  const SequenceRuns runs(2, 12, {{0, 0, 0, 0}, {0, 0, 2, 1}, {0, 3, 9, 2}, {1, 1, 12, 3}}, 5);
  for (const std::int64_t taps : {1, 3, 4, 6}) {
    for (const bool silu : {true, false}) {
      SCOPED_TRACE(testing::Message() << taps << ' ' << silu);
      ConvBackward<double> conv(runs, 2, taps, taps == 1 ? States::none : States::wide);
      conv.silu = silu;
      conv.run(runs);
      const auto out = krait::test::strided_view<double>(Arrangement::features_last, 2, 12, 2);
      const Kokkos::View<double***> final_states("krait::test::final_states", 5, 2, static_cast<std::size_t>(taps - 1));
      krait::CausalConv1dArguments<double> forward;
      forward.x = conv.x;
      forward.weight = conv.weight;
      forward.bias = conv.bias;
      if (taps > 1) forward.initial_states = conv.wide_initial;
      forward.out = out;
      forward.final_states = final_states;
      forward.activation = silu ? krait::Activation::silu : krait::Activation::none;
      const auto dout = values_of(conv.dout);
      const auto dfinal = values_of(conv.wide_dfinal);
      const auto loss = [&] {
        krait::causal_conv1d<double>(Exec(), forward, runs);
        return krait::test::weighted_sum(dout, values_of(out)) +
               krait::test::weighted_sum(dfinal, values_of(final_states));
      };
      const auto bound = krait::test::by_differences();
      EXPECT_TRUE(all_close(conv.dx, krait::test::finite_differences(conv.x, loss), bound));
      EXPECT_TRUE(all_close(conv.added(conv.dweight, conv.dweight_before),
                            krait::test::finite_differences(conv.weight, loss), bound));
      EXPECT_TRUE(all_close(conv.added(conv.dbias, conv.dbias_before), krait::test::finite_differences(conv.bias, loss),
                            bound));
      if (taps > 1) {
        EXPECT_TRUE(all_close(conv.dinitial, krait::test::finite_differences(conv.wide_initial, loss), bound));
      }
    }
  }
}

TEST(CausalConv1dBackwardOffsets, RowsMayLieFurtherApartThanThirtyTwoBits) {
  // Two rows in one allocation of 4 GiB of which only a few pages are ever touched.
  using T = krait::bfloat16;
  constexpr std::size_t pitch = (std::size_t{1} << 31) + 64;
  const Kokkos::View<T*, Exec> memory(Kokkos::view_alloc("krait::test::far", Kokkos::WithoutInitializing), pitch + 64);
  const krait::test::StridedView<T> far(memory.data(), Kokkos::LayoutStride(2, pitch, 4, 8, 8, 1));
  const auto runs = SequenceRuns::whole_rows(2, 4);
  ConvBackward<T> conv(runs, 8, 4);
  conv.run(runs);
  const auto want = values_of(conv.dx);
  const auto near = conv.dx;
  for (auto* const tensor : {&conv.x, &conv.dout, &conv.dx}) {
    const auto before = *tensor;
    krait::test::assign(far, values_of(before));
    *tensor = far;
    krait::test::poison(near);
    conv.run(runs);
    EXPECT_TRUE(all_close(conv.dx, want, krait::test::exact()));
    *tensor = before;
  }
}

template <class E, class Change>
void refused(const char* text, const Change& change) {
  const auto runs = SequenceRuns::whole_rows(2, 5);
  const ConvBackward<float> conv(runs, 3, 4);
  auto arguments = conv.arguments();
  change(arguments);
  EXPECT_THAT([&] { krait::causal_conv1d_backward<float>(Exec(), arguments, runs); },
              ThrowsMessage<E>(HasSubstr(text)));
}

TEST(CausalConv1dBackwardErrors, EveryArgumentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 3);
  const Kokkos::View<float**> flat("krait::test::flat", 3, 5);
  const Kokkos::View<float**> wide("krait::test::wide", 3, 17);
  const Kokkos::View<float*> four("krait::test::four", 4);
  const Kokkos::View<std::int64_t*> map("krait::test::map", 6);
  const Kokkos::View<std::byte*> bytes("krait::test::bytes", 59);
  const auto shape = [](const char* text, const auto& change) { refused<krait::ShapeError>(text, change); };
  const auto config = [](const char* text, const auto& change) { refused<krait::ConfigError>(text, change); };
  shape("krait::causal_conv1d_backward: x is (2, 6, 3), expected (2, 5, 3)", [&](auto& a) { a.x = odd; });
  shape("bias is (4), expected (3)", [&](auto& a) { a.bias = four; });
  shape("initial_states is (2, 6, 3), expected (2, 3, 3)", [&](auto& a) { a.initial_states = odd; });
  shape("x_map is (6), expected (5)", [&](auto& a) { a.x_map = map; });
  shape("dout is (2, 6, 3), expected (2, 5, 3)", [&](auto& a) { a.dout = odd; });
  shape("dx is (2, 6, 3), expected (2, 5, 3)", [&](auto& a) { a.dx = odd; });
  shape("dfinal_states is (2, 6, 3), expected (2, 3, 3)", [&](auto& a) { a.dfinal_states = odd; });
  shape("dinitial_states is (2, 6, 3), expected (2, 3, 3)", [&](auto& a) { a.dinitial_states = odd; });
  shape("dweight is (3, 5), expected (3, 4)", [&](auto& a) { a.dweight = flat; });
  shape("dbias is (4), expected (3)", [&](auto& a) { a.dbias = four; });
  config("krait::causal_conv1d_backward: weight has 17 taps, expected 1 to 16", [&](auto& a) { a.weight = wide; });
  config("krait::causal_conv1d_backward: dbias is given, expected it only with bias", [&](auto& a) { a.bias = {}; });
  refused<krait::CapacityError>("krait::causal_conv1d_backward: workspace has 59 bytes, expected 60",
                                [&](auto& a) { a.workspace = bytes; });
  refused<krait::CapacityError>("workspace begins at a byte that no number may begin at", [&](auto& a) {
    a.workspace = krait::Tensor<std::byte*, Exec>(a.workspace.data() + 1, Kokkos::LayoutStride(60, 1));
  });
}

}  // namespace
