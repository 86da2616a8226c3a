// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <krait/core/error.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/reference/causal_conv1d.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::SequenceRuns;
using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::random_strided_view;
using krait::test::same;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

enum class Initial { none, narrow, wide };

/// Owns what the arguments point to.
template <class T>
struct Conv {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> x;
  krait::test::StridedView<T> out;
  Kokkos::View<A**> weight;
  Kokkos::View<A*> bias;
  Kokkos::View<T***> narrow;
  Kokkos::View<A***> wide;
  Kokkos::View<T***> final_states;
  Kokkos::View<std::int64_t*> x_map;
  bool silu = true;

  Conv(const SequenceRuns& runs, std::int64_t channels, std::int64_t taps, Initial initial = Initial::none,
       Arrangement arrangement = Arrangement::features_last) {
    x = random_strided_view<T>(arrangement, 1, runs.rows(), runs.length(), channels);
    out = krait::test::strided_view<T>(arrangement, runs.rows(), runs.length(), channels);
    weight = krait::test::random_view<Kokkos::View<A**>>(2, channels, taps);
    bias = krait::test::random_view<Kokkos::View<A*>>(3, channels);
    if (initial == Initial::narrow)
      narrow = krait::test::random_view<Kokkos::View<T***>>(4, runs.states(), channels, taps - 1);
    if (initial == Initial::wide)
      wide = krait::test::random_view<Kokkos::View<A***>>(5, runs.states(), channels, taps - 1);
    final_states = krait::test::poisoned_view<Kokkos::View<T***>>(runs.states(), channels, taps - 1);
  }

  [[nodiscard]] krait::CausalConv1dArguments<T> arguments() const {
    krait::CausalConv1dArguments<T> result;
    result.x = x;
    result.weight = weight;
    result.bias = bias;
    if (narrow.data() != nullptr) result.initial_states = narrow;
    if (wide.data() != nullptr) result.initial_states = wide;
    result.out = out;
    result.final_states = final_states;
    result.activation = silu ? krait::Activation::silu : krait::Activation::none;
    result.x_map = x_map;
    return result;
  }

  void run(const SequenceRuns& runs) const { krait::causal_conv1d<T>(Exec(), arguments(), runs); }

  /// The reference of `run`, for the inputs x in the order of tokens.
  [[nodiscard]] krait::reference::CausalConv1d::Result reference(const SequenceRuns& runs,
                                                                 const std::vector<double>& inputs) const {
    const auto w = values_of(weight);
    const auto b = values_of(bias);
    const auto initial = narrow.data() != nullptr ? values_of(narrow) : values_of(wide);
    return krait::reference::CausalConv1d{static_cast<std::int64_t>(weight.extent(0)),
                                          static_cast<std::int64_t>(weight.extent(1)),
                                          silu,
                                          inputs,
                                          w,
                                          b,
                                          initial}(runs);
  }

  void expect_reference(const SequenceRuns& runs) const {
    run(runs);
    const auto want = reference(runs, values_of(x));
    EXPECT_TRUE(all_close(out, want.out, krait::test::tolerance<T>()));
    // Copies of inputs; only an initial state wider than T is rounded on its way.
    EXPECT_TRUE(all_close(final_states, want.final_states,
                          wide.data() == nullptr ? krait::test::exact() : krait::test::tolerance<T>()));
  }
};

/// Three rows: runs of 0, 1 and 2 tokens and longer ones, padding before, between and behind them; an empty row.
SequenceRuns packed_runs() {
  return {
      3, 40, {{0, 2, 2, 3}, {0, 2, 3, 0}, {0, 3, 5, 1}, {0, 5, 5, 2}, {0, 5, 23, 4}, {0, 30, 39, 5}, {2, 0, 40, 6}}, 7};
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

/// Runs that begin, end and go on where blocks of tokens do, and rows that do not.
SequenceRuns long_runs() {
  return {3,
          700,
          {{0, 0, 256, 0},
           {0, 256, 257, 1},
           {0, 257, 259, 2},
           {0, 260, 700, 3},
           {1, 3, 513, 4},
           {1, 513, 513, 5},
           {1, 600, 700, 6},
           {2, 0, 700, 7}},
          8};
}

template <class T>
class CausalConv1d : public testing::Test {};
TYPED_TEST_SUITE(CausalConv1d, Scalars);

TYPED_TEST(CausalConv1d, EveryWidthAndInitialStateMatchesTheReference) {
  for (const std::int64_t taps : {1, 2, 3, 4, 5, 8, 15, 16}) {
    for (const Initial initial : {Initial::none, Initial::narrow, Initial::wide}) {
      SCOPED_TRACE(taps);
      Conv<TypeParam>(packed_runs(), 5, taps, taps == 1 ? Initial::none : initial).expect_reference(packed_runs());
    }
  }
}

TYPED_TEST(CausalConv1d, InPlaceHasTheSameBits) {
  using T = TypeParam;
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t taps : {1, 2, 4, 5, 16}) {
      for (const auto& runs : {long_runs(), packed_runs()}) {
        SCOPED_TRACE(testing::Message() << taps << " taps, arrangement " << static_cast<int>(arrangement));
        const Conv<T> conv(runs, 19, taps, taps == 1 ? Initial::none : Initial::narrow, arrangement);
        conv.run(runs);
        const auto want = values_of(conv.out);
        const auto states = values_of(conv.final_states);
        Kokkos::deep_copy(conv.final_states, T(krait::accumulator_t<T>(-9)));
        const auto bytes = krait::causal_conv1d_workspace_bytes<T, Exec>(runs.rows(), runs.length(), 19, taps);
        auto arguments = conv.arguments();
        arguments.out = conv.x;
        const Kokkos::View<std::byte*> workspace("krait::test::workspace", bytes);
        Kokkos::deep_copy(workspace, std::byte{0xff});  // NaN
        arguments.workspace = workspace;
        krait::causal_conv1d<T>(Exec(), arguments, runs);
        EXPECT_EQ(values_of(conv.x), want);
        EXPECT_EQ(values_of(conv.final_states), states);
      }
    }
  }
}

TYPED_TEST(CausalConv1d, InPlaceRefusesWhatCannotBe) {
  using T = TypeParam;
  const auto runs = long_runs();
  Conv<T> conv(runs, 5, 4, Initial::narrow);
  auto arguments = conv.arguments();
  arguments.out = conv.x;
  const auto call = [&] { krait::causal_conv1d<T>(Exec(), arguments, runs); };
  EXPECT_THAT(call, ThrowsMessage<krait::CapacityError>(
                        HasSubstr("krait::causal_conv1d: out takes the place of x, but workspace has 0 bytes, ")));
  const auto bytes = krait::causal_conv1d_workspace_bytes<T, Exec>(runs.rows(), runs.length(), 5, 4);
  const Kokkos::View<std::byte*> workspace("krait::test::workspace", bytes);
  arguments.workspace = workspace;
  EXPECT_NO_THROW(call());
  arguments.initial_states = conv.final_states;
  EXPECT_THAT(call, ThrowsMessage<krait::ConfigError>(HasSubstr("initial_states and final_states share memory")));
  arguments.initial_states = {};
  const Kokkos::View<std::int64_t*> map("krait::test::map", runs.length());
  arguments.x_map = map;
  EXPECT_THAT(call, ThrowsMessage<krait::ConfigError>(HasSubstr("out takes the place of x, but x_map is given")));
}

TYPED_TEST(CausalConv1d, RunsWithoutStates) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t taps : {2, 4, 7}) {
      SCOPED_TRACE(static_cast<int>(arrangement));
      Conv<TypeParam>(runs_without_states(), 5, taps, Initial::narrow, arrangement)
          .expect_reference(runs_without_states());
    }
  }
}

TYPED_TEST(CausalConv1d, EveryArrangementMatchesTheReference) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const std::int64_t taps : {2, 3, 4, 7}) {
      SCOPED_TRACE(static_cast<int>(arrangement));
      Conv<TypeParam>(packed_runs(), 33, taps, Initial::narrow, arrangement).expect_reference(packed_runs());
      Conv<TypeParam>(packed_runs(), 40, taps, Initial::narrow, arrangement).expect_reference(packed_runs());
      Conv<TypeParam>(packed_runs(), 16, taps, Initial::wide, arrangement).expect_reference(packed_runs());
    }
  }
}

TYPED_TEST(CausalConv1d, LengthsAroundTheWidthAndTheBlocks) {
  for (const std::int64_t length : {0, 1, 3, 4, 15, 16, 17, 31, 33, 255, 257, 1025}) {
    SCOPED_TRACE(length);
    const auto runs = SequenceRuns::whole_rows(2, length);
    Conv<TypeParam>(runs, 3, 4, Initial::narrow).expect_reference(runs);
    Conv<TypeParam>(runs, 8, 4, Initial::narrow).expect_reference(runs);
    Conv<TypeParam>(runs, 2, 4, Initial::narrow, Arrangement::features_first).expect_reference(runs);
  }
}

TYPED_TEST(CausalConv1d, ChannelsAroundTheBlocks) {
  for (const std::int64_t channels : {0, 1, 127, 128, 129, 300}) {
    SCOPED_TRACE(channels);
    const auto runs = SequenceRuns::whole_rows(1, 20);
    Conv<TypeParam>(runs, channels, 4, Initial::narrow).expect_reference(runs);
  }
}

TYPED_TEST(CausalConv1d, OptionalPartsMayBeMissing) {
  const auto runs = packed_runs();
  for (const std::int64_t channels : {6, 16}) {
    Conv<TypeParam> conv(runs, channels, 4);
    conv.silu = false;
    conv.bias = {};
    conv.expect_reference(runs);
    auto arguments = conv.arguments();
    arguments.final_states = {};
    EXPECT_NO_THROW(krait::causal_conv1d<TypeParam>(Exec(), arguments, runs));
  }
}

TYPED_TEST(CausalConv1d, InputsAreReadThroughTheMap) {
  const auto runs = packed_runs();
  const std::int64_t places = runs.length() + 5;
  for (const Arrangement arrangement :
       {Arrangement::features_last, Arrangement::features_first, Arrangement::aligned_slice}) {
    const std::int64_t channels = arrangement == Arrangement::aligned_slice ? 16 : 9;
    const Conv<TypeParam> plain(runs, channels, 4, Initial::narrow, arrangement);
    plain.run(runs);
    Conv<TypeParam> mapped = plain;
    // Token t lies at place (7 t + 3) mod 45; the places of no token hold NaN.
    const auto inputs = values_of(plain.x);
    std::vector<double> map;
    std::vector<double> stored(static_cast<std::size_t>(runs.rows() * places * channels),
                               std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t t = 0; t < runs.length(); ++t) {
      map.push_back(static_cast<double>((7 * t + 3) % places));
      for (std::int64_t row = 0; row < runs.rows(); ++row) {
        for (std::int64_t c = 0; c < channels; ++c)
          stored[static_cast<std::size_t>((row * places + (7 * t + 3) % places) * channels + c)] =
              inputs[static_cast<std::size_t>((row * runs.length() + t) * channels + c)];
      }
    }
    mapped.x_map = Kokkos::View<std::int64_t*>("krait::test::map", static_cast<std::size_t>(runs.length()));
    krait::test::assign(mapped.x_map, map);
    mapped.x = krait::test::strided_view<TypeParam>(arrangement, runs.rows(), places, channels);
    krait::test::assign(mapped.x, stored);
    mapped.out = krait::test::strided_view<TypeParam>(arrangement, runs.rows(), runs.length(), channels);
    mapped.final_states = krait::test::poisoned_view<Kokkos::View<TypeParam***>>(runs.states(), channels, 3);
    mapped.run(runs);
    EXPECT_TRUE(same(mapped.out, plain.out));
    EXPECT_TRUE(same(mapped.final_states, plain.final_states));
  }
}

TYPED_TEST(CausalConv1d, PaddingIsInertAndOneRunDoesNotSeeAnother) {
  const auto runs = packed_runs();
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const Conv<TypeParam> clean(runs, 4, 4, Initial::narrow, arrangement);
    clean.run(runs);
    // NaN in all padding, and in the run [5, 23) with its initial state: nothing but that run may change.
    Conv<TypeParam> dirty(runs, 4, 4, Initial::narrow, arrangement);
    auto inputs = values_of(dirty.x);
    auto initial = values_of(dirty.narrow);
    auto want = values_of(clean.out);
    std::vector<bool> owned(120, false);
    for (const krait::Run& run : runs.host()) {
      for (std::int64_t t = run.begin; t < run.end; ++t)
        owned[static_cast<std::size_t>(run.row * 40 + t)] = run.state != 4;
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (owned[i / 4]) continue;
      inputs[i] = nan;
      const bool in_run = i / 4 >= 5 && i / 4 < 23;
      EXPECT_TRUE(in_run || want[i] == 0.0) << i;
      if (in_run) want[i] = nan;
    }
    for (std::size_t i = 4 * 12; i < 5 * 12; ++i) initial[i] = nan;
    krait::test::assign(dirty.x, inputs);
    krait::test::assign(dirty.narrow, initial);
    dirty.run(runs);
    EXPECT_TRUE(all_close(dirty.out, want, krait::test::exact()));
  }
}

TYPED_TEST(CausalConv1d, PackedRunsEqualSeparateCalls) {
  const auto runs = packed_runs();
  const Conv<TypeParam> packed(runs, 7, 4, Initial::narrow);
  packed.run(runs);
  for (const krait::Run& run : runs.host()) {
    const auto alone = SequenceRuns::whole_rows(1, run.end - run.begin);
    const auto row = Kokkos::make_pair(run.row, run.row + 1);
    const auto tokens = Kokkos::make_pair(run.begin, run.end);
    const auto state = Kokkos::make_pair(run.state, run.state + 1);
    Conv<TypeParam> one(alone, 7, 4);
    one.x = Kokkos::subview(packed.x, row, tokens, Kokkos::ALL);
    one.narrow = Kokkos::subview(packed.narrow, state, Kokkos::ALL, Kokkos::ALL);
    one.run(alone);
    EXPECT_TRUE(same(one.out, Kokkos::subview(packed.out, row, tokens, Kokkos::ALL)));
    EXPECT_TRUE(same(one.final_states, Kokkos::subview(packed.final_states, state, Kokkos::ALL, Kokkos::ALL)));
  }
}

TYPED_TEST(CausalConv1d, SplitThroughStatesIsTheSameBitForBit) {
  const auto whole = SequenceRuns::whole_rows(2, 50);
  for (const std::int64_t taps : {2, 4, 9}) {
    const Conv<TypeParam> all(whole, 6, taps, Initial::narrow);
    all.run(whole);
    for (const std::int64_t cut : {0, 1, 2, 17, 49, 50}) {
      const auto first_runs = SequenceRuns::whole_rows(2, cut);
      const auto second_runs = SequenceRuns::whole_rows(2, 50 - cut);
      const auto head = Kokkos::make_pair(std::int64_t{0}, cut);
      const auto tail = Kokkos::make_pair(cut, std::int64_t{50});
      Conv<TypeParam> first = all;
      first.x = Kokkos::subview(all.x, Kokkos::ALL, head, Kokkos::ALL);
      first.out = krait::test::strided_view<TypeParam>(Arrangement::features_last, 2, cut, 6);
      first.final_states = krait::test::poisoned_view<Kokkos::View<TypeParam***>>(2, 6, taps - 1);
      first.run(first_runs);
      Conv<TypeParam> second = all;
      second.x = Kokkos::subview(all.x, Kokkos::ALL, tail, Kokkos::ALL);
      second.out = krait::test::strided_view<TypeParam>(Arrangement::features_last, 2, 50 - cut, 6);
      second.narrow = first.final_states;
      second.final_states = first.final_states;  // the state moves on in its own memory
      second.run(second_runs);
      EXPECT_TRUE(same(first.out, Kokkos::subview(all.out, Kokkos::ALL, head, Kokkos::ALL)));
      EXPECT_TRUE(same(second.out, Kokkos::subview(all.out, Kokkos::ALL, tail, Kokkos::ALL)));
      EXPECT_TRUE(same(second.final_states, all.final_states));
    }
  }
}

TYPED_TEST(CausalConv1d, LargeInputsRaiseNoFloatingPointException) {
  const auto runs = SequenceRuns::whole_rows(1, 30);
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const Conv<TypeParam> conv(runs, 17, 4, Initial::none, arrangement);
    krait::test::fill_normal(conv.x, 9, 0, 2000);
    conv.run(runs);
    EXPECT_EQ(krait::test::raised_exceptions([&] { conv.run(runs); }), "");
  }
}

TEST(CausalConv1dOffsets, RowsMayLieFurtherApartThanThirtyTwoBits) {
  // Two rows in one allocation of 4 GiB of which only a few pages are ever touched.
  using T = krait::bfloat16;
  constexpr std::size_t pitch = (std::size_t{1} << 31) + 64;
  const Kokkos::View<T*, Exec> memory(Kokkos::view_alloc("krait::test::far", Kokkos::WithoutInitializing), pitch + 64);
  const Kokkos::LayoutStride layout(2, pitch, 4, 8, 8, 1);
  const auto runs = SequenceRuns::whole_rows(2, 4);
  Conv<T> conv(runs, 8, 4);
  const auto x = conv.x;
  conv.run(runs);
  conv.x = krait::test::StridedView<T>(memory.data(), layout);
  krait::test::assign(conv.x, values_of(x));
  const auto near = conv.out;
  conv.out = krait::test::strided_view<T>(Arrangement::features_last, 2, 4, 8);
  conv.run(runs);
  EXPECT_TRUE(same(conv.out, near));
  conv.x = x;
  conv.out = krait::test::StridedView<T>(memory.data(), layout);
  conv.run(runs);
  EXPECT_TRUE(same(conv.out, near));
}

template <class Change>
void refused(const char* text, const Change& change) {
  const auto runs = SequenceRuns::whole_rows(2, 5);
  auto arguments = Conv<float>(runs, 3, 4, Initial::narrow).arguments();
  change(arguments);
  EXPECT_THAT([&] { krait::causal_conv1d<float>(Exec(), arguments, runs); },
              ThrowsMessage<krait::ShapeError>(HasSubstr(text)));
}

TEST(CausalConv1dErrors, EveryExtentIsChecked) {
  const Kokkos::View<float***> odd("krait::test::odd", 2, 6, 3);
  const Kokkos::View<float*> four("krait::test::four", 4);
  const Kokkos::View<std::int64_t*> map("krait::test::map", 6);
  refused("krait::causal_conv1d: x is (2, 6, 3), expected (2, 5, 3)", [&](auto& a) { a.x = odd; });
  refused("krait::causal_conv1d: out is (2, 6, 3), expected (2, 5, 3)", [&](auto& a) { a.out = odd; });
  refused("krait::causal_conv1d: bias is (4), expected (3)", [&](auto& a) { a.bias = four; });
  refused("krait::causal_conv1d: initial_states is (2, 6, 3), expected (2, 3, 3)",
          [&](auto& a) { a.initial_states = odd; });
  refused("krait::causal_conv1d: final_states is (2, 6, 3), expected (2, 3, 3)",
          [&](auto& a) { a.final_states = odd; });
  refused("krait::causal_conv1d: x_map is (6), expected (5)", [&](auto& a) { a.x_map = map; });
}

TEST(CausalConv1dErrors, WidthIsOneToSixteen) {
  const auto runs = SequenceRuns::whole_rows(1, 5);
  auto arguments = Conv<float>(runs, 3, 4).arguments();
  const Kokkos::View<float**> wide("krait::test::wide", 3, 17);
  const Kokkos::View<float**> none("krait::test::none", 3, 0);
  arguments.weight = wide;
  EXPECT_THAT(
      [&] { krait::causal_conv1d<float>(Exec(), arguments, runs); },
      ThrowsMessage<krait::ConfigError>(HasSubstr("krait::causal_conv1d: weight has 17 taps, expected 1 to 16")));
  arguments.weight = none;
  EXPECT_THAT([&] { krait::causal_conv1d<float>(Exec(), arguments, runs); },
              ThrowsMessage<krait::ConfigError>(HasSubstr("weight has 0 taps")));
}

}  // namespace
