// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_update.hpp>
#include <krait/reference/causal_conv1d_update.hpp>
#include <vector>

#include <support/allclose.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/strided_view.hpp>

namespace {

using krait::ConfigError;
using krait::SequenceRuns;
using krait::ShapeError;
using krait::test::all_close;
using krait::test::Arrangement;
using krait::test::same;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// How the states lie: a channel's entries side by side, as a tensor is by default, or channels at unit stride.
enum class States { entries_last, channels_last };

/// Owns what the arguments point to.
template <class T>
struct Update {
  using A = krait::accumulator_t<T>;
  krait::test::StridedView<T> x, out, states;
  Kokkos::View<A**, Kokkos::LayoutRight> weight;
  Kokkos::View<A*> bias;
  std::vector<std::int64_t> map;
  Kokkos::View<std::int64_t*> state_map;
  bool silu = true;

  Update(std::int64_t batch, std::int64_t length, std::int64_t channels, std::int64_t taps,
         Arrangement arrangement = Arrangement::features_last, States order = States::entries_last,
         std::vector<std::int64_t> slots = {}, std::int64_t pool = 0)
      : x(krait::test::random_strided_view<T>(arrangement, 1, batch, length, channels)),
        out(krait::test::strided_view<T>(arrangement, batch, length, channels)),
        weight(krait::test::random_view<Kokkos::View<A**, Kokkos::LayoutRight>>(2, channels, taps)),
        bias(krait::test::random_view<Kokkos::View<A*>>(3, channels)),
        map(std::move(slots)) {
    states = krait::test::random_strided_view<T>(
        order == States::entries_last ? Arrangement::features_last : Arrangement::features_first, 4,
        map.empty() ? batch : pool, channels, taps - 1);
    if (map.empty()) return;
    state_map = Kokkos::View<std::int64_t*>("krait::test::state_map", map.size());
    krait::test::assign(state_map, {map.begin(), map.end()});
  }

  [[nodiscard]] krait::CausalConv1dUpdateArguments<T> arguments() const {
    krait::CausalConv1dUpdateArguments<T> a;
    a.states = states;
    a.x = x;
    a.weight = weight;
    a.bias = bias;
    a.out = out;
    a.activation = silu ? krait::Activation::silu : krait::Activation::none;
    a.state_map = state_map;
    return a;
  }

  void run() const { krait::causal_conv1d_update<T>(Exec(), arguments()); }

  void expect_reference() const {
    auto want_states = values_of(states);
    const auto want = krait::reference::CausalConv1dUpdate{static_cast<std::int64_t>(x.extent(0)),
                                                           static_cast<std::int64_t>(x.extent(1)),
                                                           static_cast<std::int64_t>(x.extent(2)),
                                                           static_cast<std::int64_t>(weight.extent(1)),
                                                           silu,
                                                           values_of(x),
                                                           values_of(weight),
                                                           values_of(bias),
                                                           map}(want_states);
    run();
    EXPECT_TRUE(all_close(out, want, krait::test::tolerance<T>())) << "out";
    EXPECT_TRUE(all_close(states, want_states, krait::test::exact())) << "states";
  }
};

template <class T>
class CausalConv1dUpdate : public testing::Test {};
TYPED_TEST_SUITE(CausalConv1dUpdate, Scalars);

TYPED_TEST(CausalConv1dUpdate, EveryWidthAndLengthMatchesTheReference) {
  for (const std::int64_t taps : {1, 2, 3, 4, 5, 9, 16}) {
    for (const std::int64_t length : {1, 2, 3, 5, 17}) {
      SCOPED_TRACE(testing::Message() << taps << " taps, " << length << " tokens");
      Update<TypeParam>(2, length, 21, taps).expect_reference();
    }
  }
}

TYPED_TEST(CausalConv1dUpdate, EveryArrangementMatchesTheReference) {
  for (const Arrangement arrangement : krait::test::all_arrangements) {
    for (const States order : {States::entries_last, States::channels_last}) {
      SCOPED_TRACE(static_cast<int>(arrangement));
      Update<TypeParam>(3, 2, 33, 4, arrangement, order).expect_reference();
    }
  }
}

TYPED_TEST(CausalConv1dUpdate, RowsAndChannelsAroundTheBlocks) {
  for (const std::int64_t batch : {1, 7, 8, 9, 64}) {
    for (const std::int64_t channels : {1, 15, 511, 512, 513, 1100}) {
      SCOPED_TRACE(testing::Message() << batch << " rows, " << channels << " channels");
      Update<TypeParam>(batch, 1, channels, 4).expect_reference();
    }
  }
}

TYPED_TEST(CausalConv1dUpdate, OptionalPartsMayBeMissing) {
  Update<TypeParam> update(2, 1, 40, 4);
  update.silu = false;
  update.bias = {};
  update.expect_reference();
}

TYPED_TEST(CausalConv1dUpdate, RowsOfAPoolAndPadding) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const Update<TypeParam> update(4, 2, 20, 4, arrangement, States::entries_last, {5, -1, 0, 2}, 6);
    krait::test::poison(Kokkos::subview(update.states, 1, Kokkos::ALL, Kokkos::ALL));
    update.expect_reference();
  }
}

/// Token by token, bit for bit, the convolution of whole rows and the state that it leaves.
TYPED_TEST(CausalConv1dUpdate, TokenByTokenEqualsTheConvolution) {
  using T = TypeParam;
  constexpr std::int64_t length = 20;
  for (const std::int64_t taps : {2, 4, 7}) {
    for (const std::int64_t at_once : {1, 3}) {
      const Update<T> update(2, length, 37, taps);
      const auto out = krait::test::strided_view<T>(Arrangement::features_last, 2, length, 37);
      const auto final_states = krait::test::poisoned_view<Kokkos::View<T***>>(2, 37, taps - 1);
      krait::CausalConv1dArguments<T> conv;
      conv.x = update.x;
      conv.weight = update.weight;
      conv.bias = update.bias;
      conv.initial_states = update.states;
      conv.out = out;
      conv.final_states = final_states;
      krait::causal_conv1d<T>(Exec(), conv, SequenceRuns::whole_rows(2, length));
      for (std::int64_t t = 0; t < length; t += at_once) {
        const auto tokens = Kokkos::make_pair(t, std::min(t + at_once, length));
        auto arguments = update.arguments();
        arguments.x = Kokkos::subview(update.x, Kokkos::ALL, tokens, Kokkos::ALL);
        arguments.out = Kokkos::subview(update.out, Kokkos::ALL, tokens, Kokkos::ALL);
        krait::causal_conv1d_update<T>(Exec(), arguments);
      }
      EXPECT_TRUE(same(update.out, out));
      EXPECT_TRUE(same(update.states, final_states));
    }
  }
}

TYPED_TEST(CausalConv1dUpdate, NothingToDo) {
  Update<TypeParam>(0, 1, 5, 4).expect_reference();
  Update<TypeParam>(2, 0, 5, 4).expect_reference();
  Update<TypeParam>(2, 1, 0, 4).expect_reference();
}

TYPED_TEST(CausalConv1dUpdate, LargeInputsRaiseNoFloatingPointException) {
  for (const Arrangement arrangement : {Arrangement::features_last, Arrangement::features_first}) {
    const Update<TypeParam> update(3, 2, 17, 4, arrangement);
    krait::test::fill_normal(update.x, 9, 0, 2000);
    EXPECT_EQ(krait::test::raised_exceptions([&] { update.run(); }), "");
  }
}

TEST(CausalConv1dUpdateErrors, NameTheArgument) {
  using Arguments = krait::CausalConv1dUpdateArguments<float>;
  const auto call_with = [](const auto& change) {
    return [change] {
      const Update<float> update(3, 2, 5, 4);
      auto arguments = update.arguments();
      change(arguments);
      krait::causal_conv1d_update<float>(Exec(), arguments);
    };
  };
  const auto says = [](const char* text) { return ThrowsMessage<ShapeError>(HasSubstr(text)); };
  EXPECT_THAT(call_with([](Arguments& a) { a.x = Kokkos::View<float***>("v", 3, 2, 6); }),
              says("krait::causal_conv1d_update: x is (3, 2, 6), expected (3, 2, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.out = Kokkos::View<float***>("v", 3, 1, 5); }),
              says("out is (3, 1, 5), expected (3, 2, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.states = Kokkos::View<float***>("v", 4, 5, 3); }),
              says("states is (4, 5, 3), expected (3, 5, 3)"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.state_map = Kokkos::View<std::int64_t*>("v", 3);
                a.states = Kokkos::View<float***>("v", 4, 5, 4);
              }),
              says("states is (4, 5, 4), expected (4, 5, 3)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.state_map = Kokkos::View<std::int64_t*>("v", 2); }),
              says("state_map is (2), expected (3)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.bias = Kokkos::View<float*>("v", 4); }),
              says("bias is (4), expected (5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.weight = Kokkos::View<float**>("v", 5, 17); }),
              ThrowsMessage<ConfigError>(HasSubstr("weight has 17 taps, expected 1 to 16")));
  EXPECT_THAT(call_with([](Arguments& a) { a.weight = Kokkos::View<float**>("v", 5, 0); }),
              ThrowsMessage<ConfigError>(HasSubstr("weight has 0 taps, expected 1 to 16")));
}

}  // namespace
