// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <krait/core/error.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/state_update.hpp>
#include <krait/reference/state_update.hpp>
#include <limits>
#include <optional>
#include <vector>

#include <support/allclose.hpp>
#include <support/fp_exceptions.hpp>
#include <support/random_view.hpp>
#include <support/ssd_data.hpp>

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::accumulator_t;
using krait::ConfigError;
using krait::SequenceRuns;
using krait::ShapeError;
using krait::SsdScanShape;
using krait::StateUpdateArguments;
using krait::test::all_close;
using krait::test::Decay;
using krait::test::same;
using krait::test::ScanData;
using krait::test::ScanSetup;
using krait::test::Skip;
using krait::test::tolerance;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

template <class DataType>
using Right = Kokkos::View<DataType, Kokkos::LayoutRight>;

/// The tensors of a scan of the same tokens, with states of their own to be updated.
template <class T>
struct Update {
  using V = accumulator_t<T>;
  ScanData<T> data;
  Right<V****> states;
  std::vector<std::int64_t> map;
  Right<std::int64_t*> state_map;

  /// \param pool  states there are, if not one for each row
  explicit Update(const ScanSetup& setup, std::vector<std::int64_t> slots = {}, std::int64_t pool = 0)
      : data(setup, setup.shape.batch), map(std::move(slots)) {
    const SsdScanShape& s = setup.shape;
    states = krait::test::random_view<Right<V****>>(setup.seed + 20, map.empty() ? s.batch : pool, s.heads, s.head_dim,
                                                    s.d_state);
    if (map.empty()) return;
    state_map = Right<std::int64_t*>("krait::test::state_map", map.size());
    krait::test::assign(state_map, {map.begin(), map.end()});
  }

  [[nodiscard]] StateUpdateArguments<T> arguments() const {
    const auto scan = data.arguments();
    const auto& options = data.setup.options;
    StateUpdateArguments<T> a;
    a.states = states;
    a.x = scan.x;
    a.dt = scan.dt;
    a.A = scan.A;
    a.B = scan.B;
    a.C = scan.C;
    a.D = scan.D;
    a.D_per_channel = scan.D_per_channel;
    a.z = scan.z;
    a.dt_bias = scan.dt_bias;
    a.out = scan.out;
    a.state_map = state_map;
    a.dt_softplus = options.dt_softplus;
    a.dt_min = options.dt_min;
    a.dt_max = options.dt_max;
    a.heads_per_group = options.heads_per_group;
    a.first_head = options.first_head;
    return a;
  }

  void run() const {
    krait::state_update<T>(Exec(), arguments());
    Kokkos::fence("krait::test: results are ready");
  }

  [[nodiscard]] krait::reference::StateUpdate reference() const {
    const SsdScanShape& s = data.setup.shape;
    const auto& t = data.truth;
    return {s.batch,  s.length,          s.heads,      s.head_dim, s.groups, s.d_state, t.dt_softplus, t.dt_min,
            t.dt_max, t.heads_per_group, t.first_head, t.x,        t.dt,     t.A,       t.B,           t.C,
            t.D,      t.D_per_channel,   t.z,          t.dt_bias,  map};
  }

  void expect_reference() const {
    auto want_states = values_of(states);
    const auto want = krait::reference::state_update(reference(), want_states);
    run();
    EXPECT_TRUE(all_close(data.out, want, tolerance<T>())) << "out";
    EXPECT_TRUE(all_close(states, want_states, tolerance<V>())) << "states";
  }
};

ScanSetup full() {
  ScanSetup setup;
  setup.shape = {.batch = 3, .length = 2, .heads = 4, .head_dim = 5, .groups = 2, .d_state = 6};
  setup.gate = true;
  return setup;
}

template <class T>
class StateUpdate : public testing::Test {};
TYPED_TEST_SUITE(StateUpdate, Scalars);

TYPED_TEST(StateUpdate, OneTokenOfManyShapes) {
  struct Extents {
    std::int64_t H, P, G, N;
  };
  for (const Extents& e :
       {Extents{1, 1, 1, 1}, Extents{5, 33, 1, 47}, Extents{6, 16, 3, 16}, Extents{3, 17, 1, 15},
        Extents{2, 64, 1, 128}, Extents{4, 80, 4, 129}, Extents{2, 3, 2, 256}, Extents{4, 38, 2, 24}}) {
    for (const std::int64_t batch : {1, 2}) {
      SCOPED_TRACE(testing::Message() << "H " << e.H << " P " << e.P << " N " << e.N << " b " << batch);
      ScanSetup setup;
      setup.shape = {batch, 1, e.H, e.P, e.G, e.N};
      Update<TypeParam>(setup).expect_reference();
    }
  }
}

TYPED_TEST(StateUpdate, ManyRows) {
  ScanSetup setup = full();
  setup.shape.batch = 64;
  setup.shape.length = 1;
  Update<TypeParam>(setup).expect_reference();
}

/// One token, a few, and more than a kernel takes at a time.
TYPED_TEST(StateUpdate, SeveralTokens) {
  for (const std::int64_t length : {1, 2, 7, 8, 9, 21}) {
    SCOPED_TRACE(length);
    ScanSetup setup = full();
    setup.shape.length = length;
    setup.shape.head_dim = 19;
    Update<TypeParam>(setup).expect_reference();
  }
}

TYPED_TEST(StateUpdate, EveryOptionalPart) {
  for (const bool gate : {false, true}) {
    for (const Skip skip : {Skip::none, Skip::per_head, Skip::per_channel}) {
      for (const bool bias : {false, true}) {
        for (const bool wide : {false, true}) {
          ScanSetup setup = full();
          setup.gate = gate;
          setup.skip = skip;
          setup.dt_bias = bias;
          setup.wide_dt = wide;
          Update<TypeParam>(setup).expect_reference();
        }
      }
    }
  }
}

TYPED_TEST(StateUpdate, StepsWithoutSoftplusAndWithinLimits) {
  for (const bool softplus : {false, true}) {
    ScanSetup setup = full();
    setup.shape.batch = 20;
    setup.options.dt_softplus = softplus;
    setup.options.dt_min = 0.01;
    setup.options.dt_max = 0.03;
    Update<TypeParam>(setup).expect_reference();
  }
}

TYPED_TEST(StateUpdate, EveryDecay) {
  for (const Decay decay : {Decay::model, Decay::slow, Decay::mixed}) {
    ScanSetup setup = full();
    setup.shape.batch = 30;
    setup.decay = decay;
    Update<TypeParam>(setup).expect_reference();
  }
}

TYPED_TEST(StateUpdate, HeadsThatBeginInsideAGroup) {
  ScanSetup setup = full();
  setup.shape.groups = 3;
  setup.options.heads_per_group = 3;
  setup.options.first_head = 2;
  Update<TypeParam>(setup).expect_reference();
}

TYPED_TEST(StateUpdate, RowsOfAPoolAndPadding) {
  const Update<TypeParam> update(full(), {4, -1, 0}, 6);
  const auto before = values_of(update.states);
  krait::test::poison(Kokkos::subview(update.data.x, 1, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL));
  update.expect_reference();
  const auto after = values_of(update.states);
  const std::size_t size = before.size() / 6;
  for (const std::size_t slot : {1U, 2U, 3U, 5U}) {
    const auto range = [&](const auto& values) {
      return std::vector<double>(values.begin() + static_cast<std::ptrdiff_t>(slot * size),
                                 values.begin() + static_cast<std::ptrdiff_t>((slot + 1) * size));
    };
    EXPECT_EQ(range(after), range(before)) << "slot " << slot;
  }
}

/// Token by token, the states and outputs of a scan.
TYPED_TEST(StateUpdate, TokenByTokenEqualsTheScan) {
  using T = TypeParam;
  using V = accumulator_t<T>;
  ScanSetup setup = full();
  setup.shape = {.batch = 2, .length = 40, .heads = 4, .head_dim = 12, .groups = 2, .d_state = 20};
  setup.initial_states = true;
  setup.options.dt_min = 0.005;
  for (const std::int64_t at_once : {1, 3}) {
    const ScanData<T> scan(setup, 2);
    krait::test::run_scan(scan, SequenceRuns::whole_rows(2, 40));
    const Update<T> update(setup);
    Kokkos::deep_copy(update.states, scan.initial_states);
    const auto all = update.arguments();
    const auto few = [&](const auto& view, std::int64_t first) {
      return Kokkos::subview(view, Kokkos::ALL,
                             Kokkos::make_pair(first, std::min<std::int64_t>(first + at_once, setup.shape.length)),
                             Kokkos::ALL, Kokkos::ALL);
    };
    for (std::int64_t t = 0; t < setup.shape.length; t += at_once) {
      auto some = all;
      some.x = few(update.data.x, t);
      some.B = few(update.data.B, t);
      some.C = few(update.data.C, t);
      some.z = few(update.data.z, t);
      some.out = few(update.data.out, t);
      some.dt =
          Kokkos::subview(update.data.dt, Kokkos::ALL,
                          Kokkos::make_pair(t, std::min<std::int64_t>(t + at_once, setup.shape.length)), Kokkos::ALL);
      krait::state_update<T>(Exec(), some);
    }
    EXPECT_TRUE(all_close(update.data.out, scan.out, tolerance<T>()));
    EXPECT_TRUE(all_close(update.states, scan.final_states, tolerance<V>()));
  }
}

/// The rows of a state go to vector code in groups: who goes with whom must not show.
TYPED_TEST(StateUpdate, ChannelsDoNotDependOnTheirNeighbours) {
  using T = TypeParam;
  ScanSetup setup = full();
  setup.shape.head_dim = 21;
  setup.skip = Skip::per_channel;
  const Update<T> all(setup);
  const Update<T> parts(setup);
  all.run();
  for (const auto& [first, last] : {std::pair(0, 2), std::pair(2, 7), std::pair(7, 21)}) {
    const auto cut = [first = first, last = last](const auto& view) {
      return Kokkos::subview(view, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(first, last));
    };
    auto some = parts.arguments();
    some.states = Kokkos::subview(parts.states, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(first, last), Kokkos::ALL);
    some.x = cut(parts.data.x);
    some.z = cut(parts.data.z);
    some.out = cut(parts.data.out);
    some.D_per_channel = Kokkos::subview(parts.data.D_per_channel, Kokkos::ALL, Kokkos::make_pair(first, last));
    krait::state_update<T>(Exec(), some);
  }
  EXPECT_TRUE(same(parts.data.out, all.data.out));
  EXPECT_TRUE(same(parts.states, all.states));
}

template <class View>
auto left_copy(const View& view) {
  Kokkos::View<typename View::non_const_data_type, Kokkos::LayoutLeft> copy(
      "left", view.layout().dimension[0], view.extent(1), view.extent(2), view.extent(3));
  krait::test::assign(copy, values_of(view));
  return copy;
}

TYPED_TEST(StateUpdate, LayoutLeft) {
  using T = TypeParam;
  const Update<T> update(full());
  auto want_states = values_of(update.states);
  const auto want = krait::reference::state_update(update.reference(), want_states);
  const auto states = left_copy(update.states);
  const auto x = left_copy(update.data.x), B = left_copy(update.data.B), C = left_copy(update.data.C),
             z = left_copy(update.data.z), out = left_copy(update.data.out);
  auto arguments = update.arguments();
  arguments.states = states;
  arguments.x = x;
  arguments.B = B;
  arguments.C = C;
  arguments.z = z;
  arguments.out = out;
  krait::state_update<T>(Exec(), arguments);
  EXPECT_TRUE(all_close(out, want, tolerance<T>()));
  EXPECT_TRUE(all_close(states, want_states, tolerance<accumulator_t<T>>()));
}

TYPED_TEST(StateUpdate, LayoutLeftOfAPoolWithPadding) {
  using T = TypeParam;
  const Update<T> update(full(), {-1, 3, 1}, 4);
  auto want_states = values_of(update.states);
  const auto want = krait::reference::state_update(update.reference(), want_states);
  const auto states = left_copy(update.states);
  auto arguments = update.arguments();
  arguments.states = states;
  krait::state_update<T>(Exec(), arguments);
  EXPECT_TRUE(all_close(update.data.out, want, tolerance<T>()));
  EXPECT_TRUE(all_close(states, want_states, tolerance<accumulator_t<T>>()));
}

TYPED_TEST(StateUpdate, NothingToDo) {
  ScanSetup setup = full();
  setup.shape.batch = 0;
  Update<TypeParam>(setup).expect_reference();
  setup = full();
  setup.shape.length = 0;
  const Update<TypeParam> update(setup);
  const auto before = values_of(update.states);
  update.run();
  EXPECT_EQ(values_of(update.states), before);
}

TYPED_TEST(StateUpdate, ExtremeInputsRaiseNoFloatingPointException) {
  ScanSetup setup = full();
  setup.shape.batch = 100;
  setup.decay = Decay::mixed;
  const Update<TypeParam> update(setup);
  auto z = values_of(update.data.z);
  for (std::size_t i = 0; i < z.size(); i += 3) z[i] = i % 2 == 0 ? 1000 : -1000;
  krait::test::assign(update.data.z, z);
  EXPECT_EQ(krait::test::raised_exceptions([&] { update.run(); }), "");
  for (const double value : values_of(update.data.out)) ASSERT_TRUE(std::isfinite(value));
}

/// Two states whose distance in memory does not fit 32 bits; only the pages of these two are ever touched.
TEST(StateUpdateTensors, StatesFurtherApartThanThirtyTwoBits) {
  constexpr std::int64_t far = (std::int64_t(1) << 31) + 40;
  ScanSetup setup;
  setup.shape = {.batch = 2, .length = 1, .heads = 1, .head_dim = 2, .groups = 1, .d_state = 4};
  const Update<float> want(setup);
  const Update<float> got(setup);
  const Kokkos::View<float*> memory(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::test::far"), far + 8);
  const auto states = krait::make_tensor<float****, Exec, 4>(memory.data(), {2, 1, 2, 4}, {far, 0, 4, 1});
  krait::test::assign(states, values_of(want.states));
  want.run();
  auto arguments = got.arguments();
  arguments.states = states;
  krait::state_update<float>(Exec(), arguments);
  EXPECT_TRUE(same(got.data.out, want.data.out));
  EXPECT_TRUE(same(states, want.states));
}

// Errors. Each message names the function, the argument, what was given and what was expected.

template <class Change>
auto call_with(const Change& change) {
  return [change] {
    const Update<float> update(full());
    auto arguments = update.arguments();
    change(arguments);
    krait::state_update<float>(Exec(), arguments);
  };
}

TEST(StateUpdateErrors, EveryExtentIsChecked) {
  using Arguments = StateUpdateArguments<float>;
  const auto says = [](const char* text) { return ThrowsMessage<ShapeError>(HasSubstr(text)); };
  EXPECT_THAT(call_with([](Arguments& a) { a.states = Right<float****>("v", 4, 4, 5, 6); }),
              says("krait::state_update: states is (4, 4, 5, 6), expected (3, 4, 5, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.state_map = Right<std::int64_t*>("v", 3);
                a.states = Right<float****>("v", 9, 4, 5, 7);
              }),
              says("states is (9, 4, 5, 7), expected (9, 4, 5, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.state_map = Right<std::int64_t*>("v", 2); }),
              says("state_map is (2), expected (3)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt = Right<float***>("v", 3, 2, 3); }),
              says("dt is (3, 2, 3), expected (3, 2, 4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.A = Right<float*>("v", 3); }), says("A is (3), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.B = Right<float****>("v", 3, 1, 2, 6); }),
              says("B is (3, 1, 2, 6), expected (3, 2, 2, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.C = Right<float****>("v", 3, 2, 2, 7); }),
              says("C is (3, 2, 2, 7), expected (3, 2, 2, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.D = Right<float*>("v", 5); }), says("D is (5), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.D = {};
                a.D_per_channel = Right<float**>("v", 4, 6);
              }),
              says("D_per_channel is (4, 6), expected (4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.z = Right<float****>("v", 1, 2, 4, 5); }),
              says("z is (1, 2, 4, 5), expected (3, 2, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_bias = Right<float*>("v", 1); }), says("dt_bias is (1), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.out = {}; }), says("out is (0, 0, 0, 0), expected (3, 2, 4, 5)"));
}

TEST(StateUpdateErrors, OptionsThatCannotWork) {
  using Arguments = StateUpdateArguments<float>;
  const auto says = [](const char* text) {
    return ThrowsMessage<ConfigError>(testing::AllOf(HasSubstr("krait::state_update: "), HasSubstr(text)));
  };
  EXPECT_THAT(call_with([](Arguments& a) { a.D_per_channel = Right<float**>("v", 4, 5); }),
              says("D and D_per_channel are both given"));
  EXPECT_THAT(call_with([](Arguments& a) { a.x = {}; }), says("heads = 0, expected 1 or more"));
  EXPECT_THAT(call_with([](Arguments& a) { a.B = Right<float****>("v", 3, 2, 3, 6); }),
              says("heads = 4 are not divisible by groups = 3"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.dt_min = 1;
                a.dt_max = 0.5;
              }),
              says("[1, 0.5], expected dt_min <= dt_max"));
  EXPECT_THAT(call_with([](Arguments& a) { a.heads_per_group = -1; }), says("heads_per_group = -1"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.heads_per_group = 2;
                a.first_head = 1;
              }),
              says("heads 1 to 4 of 2 per group read group 2, expected less than groups = 2"));
}

}  // namespace
