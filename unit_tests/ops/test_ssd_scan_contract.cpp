// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <krait/core/error.hpp>
#include <krait/ops/ssd_scan.hpp>

#include <support/callback_recorder.hpp>
#include <support/fp_exceptions.hpp>
#include <support/ssd_data.hpp>

/// How the scan takes its tensors, what it refuses, and what it never does.

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::ConfigError;
using krait::SequenceRuns;
using krait::ShapeError;
using krait::SsdScanArguments;
using krait::SsdScanOptions;
using krait::SsdScanPlan;
using krait::SsdScanShape;
using krait::test::Decay;
using krait::test::run_scan;
using krait::test::same;
using krait::test::ScanData;
using krait::test::ScanSetup;
using krait::test::Skip;
using krait::test::values_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using testing::ThrowsMessage;

ScanSetup full() {
  ScanSetup setup;
  setup.shape = {.batch = 2, .length = 45, .heads = 4, .head_dim = 5, .groups = 2, .d_state = 6};
  setup.gate = true;
  setup.store_y = true;
  setup.initial_states = true;
  return setup;
}

template <class T>
SequenceRuns rows_of(const ScanData<T>& data) {
  return SequenceRuns::whole_rows(data.setup.shape.batch, data.setup.shape.length);
}

template <class T>
void run_with(const ScanData<T>& data, const SsdScanArguments<T>& arguments) {
  const Exec exec;
  const SsdScanPlan<T> plan(exec, data.setup.shape, data.setup.options);
  krait::ssd_scan(exec, plan, arguments, rows_of(data));
}

template <class T>
void expect_same_outputs(const ScanData<T>& got, const ScanData<T>& want) {
  EXPECT_TRUE(same(got.out, want.out));
  EXPECT_TRUE(same(got.y, want.y));
  EXPECT_TRUE(same(got.final_states, want.final_states));
}

template <class T>
class SsdScanTensors : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(SsdScanTensors, Scalars);

/// z | x | B | C | dt, cut out of one projection and not copied.
TYPED_TEST(SsdScanTensors, SlicesOfOneProjection) {
  using T = TypeParam;
  const ScanData<T> want(full(), 2);
  run_scan(want, rows_of(want));

  const auto& s = want.setup.shape;
  const std::int64_t HP = s.heads * s.head_dim, GN = s.groups * s.d_state;
  const std::int64_t width = 2 * HP + 2 * GN + s.heads;
  const auto wide = krait::test::poisoned_view<Kokkos::View<T***, Kokkos::LayoutRight>>(s.batch, s.length, width);
  const auto cut = [&](std::int64_t offset, std::int64_t outer, std::int64_t inner) {
    return krait::make_tensor<T****, Exec, 4>(wide.data() + offset, {s.batch, s.length, outer, inner},
                                              {s.length * width, width, inner, 1});
  };
  const auto z = cut(0, s.heads, s.head_dim);
  const auto x = cut(HP, s.heads, s.head_dim);
  const auto B = cut(2 * HP, s.groups, s.d_state);
  const auto C = cut(2 * HP + GN, s.groups, s.d_state);
  const auto dt = krait::make_tensor<T***, Exec, 3>(wide.data() + 2 * HP + 2 * GN, {s.batch, s.length, s.heads},
                                                    {s.length * width, width, 1});
  krait::test::assign(z, values_of(want.z));
  krait::test::assign(x, values_of(want.x));
  krait::test::assign(B, values_of(want.B));
  krait::test::assign(C, values_of(want.C));
  krait::test::assign(dt, values_of(want.dt));

  const ScanData<T> got(full(), 2);
  auto arguments = got.arguments();
  arguments.x = x;
  arguments.B = B;
  arguments.C = C;
  arguments.z = z;
  // A MixedTensor takes Views that own or name their memory alike.
  arguments.dt = dt;
  run_with(got, arguments);
  expect_same_outputs(got, want);
}

TYPED_TEST(SsdScanTensors, OutputsInThePlaceOfInputs) {
  using T = TypeParam;
  for (const krait::impl::SsdScanTiling& tiling :
       {krait::impl::SsdScanTiling{}, krait::impl::SsdScanTiling{.chunk = 7, .head_tile = 3},
        krait::impl::SsdScanTiling{.chunk = 16, .head_block = 2, .abreast = 2}}) {
    for (const std::int64_t segments : {1, 3}) {
      ScanSetup setup = full();
      setup.gate = setup.store_y = segments == 3;
      setup.options.segments = segments;
      const ScanData<T> want(setup, 2);
      run_scan(want, rows_of(want), tiling);
      const ScanData<T> got(setup, 2);
      auto arguments = got.arguments();
      arguments.out = got.x;
      const Exec exec;
      const SsdScanPlan<T> plan(exec, setup.shape, setup.options, tiling);
      krait::ssd_scan(exec, plan, arguments, rows_of(got));
      EXPECT_TRUE(same(got.x, want.out)) << "chunk " << tiling.chunk << ", segments " << segments;
      EXPECT_TRUE(same(got.final_states, want.final_states));
      if (setup.store_y) {
        EXPECT_TRUE(same(got.y, want.y));
      }
    }
  }
}

TYPED_TEST(SsdScanTensors, LayoutLeft) {
  using T = TypeParam;
  using V = krait::accumulator_t<T>;
  const ScanData<T> want(full(), 2);
  run_scan(want, rows_of(want));
  const auto left = [](const auto& view) {
    using Right = std::decay_t<decltype(view)>;
    typename Kokkos::View<typename Right::non_const_data_type, Kokkos::LayoutLeft> copy(
        "left", view.extent(0), view.extent(1), view.extent(2), view.extent(3));
    krait::test::assign(copy, values_of(view));
    return copy;
  };
  const auto x = left(want.x), B = left(want.B), C = left(want.C), z = left(want.z);
  const auto initial = left(want.initial_states);
  const Kokkos::View<T***, Kokkos::LayoutLeft> dt("left", want.dt.extent(0), want.dt.extent(1), want.dt.extent(2));
  krait::test::assign(dt, values_of(want.dt));
  const ScanData<T> got(full(), 2);
  const auto out = left(got.out), y = left(got.y);
  const Kokkos::View<V****, Kokkos::LayoutLeft> final_states = left(got.final_states);
  auto arguments = got.arguments();
  arguments.x = x;
  arguments.B = B;
  arguments.C = C;
  arguments.z = z;
  arguments.dt = dt;
  arguments.initial_states = initial;
  arguments.out = out;
  arguments.y = y;
  arguments.final_states = final_states;
  run_with(got, arguments);
  // A gate at unit stride may be evaluated by other instructions.
  EXPECT_TRUE(krait::test::all_close(out, want.out, krait::test::tolerance<T>()));
  EXPECT_TRUE(same(y, want.y));
  EXPECT_TRUE(same(final_states, want.final_states));
}

TYPED_TEST(SsdScanTensors, InitialStatesInStorageType) {
  using T = TypeParam;
  ScanData<T> data(full(), 2);
  const typename ScanData<T>::template View<T****> narrow("narrow", 2, 4, 5, 6);
  krait::test::assign(narrow, values_of(data.initial_states));
  krait::test::assign(data.initial_states, values_of(narrow));
  run_scan(data, rows_of(data));
  const ScanData<T> got(full(), 2);
  auto arguments = got.arguments();
  arguments.initial_states = narrow;
  run_with(got, arguments);
  expect_same_outputs(got, data);
}

TEST(SsdScan, PlacesOfStepsAndOutputs) {
  const ScanData<float> want(full(), 2);
  run_scan(want, rows_of(want));
  const std::int64_t L = want.setup.shape.length, H = want.setup.shape.heads, P = want.setup.shape.head_dim;
  // Token t of dt lies at 50 - t, that of out at 7 t modulo 53: both have more places than tokens.
  const Kokkos::View<std::int64_t*> dt_map("dt_map", L), out_map("out_map", L);
  const ScanData<float>::View<float***> dt("dt", 2, 51, H);
  const ScanData<float>::View<float****> out("out", 2, 53, H, P);
  krait::test::poison(dt);
  krait::test::poison(out);
  const auto host_dt_map = Kokkos::create_mirror_view(dt_map);
  const auto host_out_map = Kokkos::create_mirror_view(out_map);
  for (std::int64_t t = 0; t < L; ++t) {
    host_dt_map(t) = 50 - t;
    host_out_map(t) = 7 * t % 53;
    const auto from = Kokkos::subview(want.dt, Kokkos::ALL, t, Kokkos::ALL);
    krait::test::assign(Kokkos::subview(dt, Kokkos::ALL, 50 - t, Kokkos::ALL), values_of(from));
  }
  Kokkos::deep_copy(dt_map, host_dt_map);
  Kokkos::deep_copy(out_map, host_out_map);
  const ScanData<float> got(full(), 2);
  auto arguments = got.arguments();
  arguments.dt = dt;
  arguments.out = out;
  arguments.dt_map = dt_map;
  arguments.out_map = out_map;
  run_with(got, arguments);
  const auto all = Kokkos::ALL;
  for (std::int64_t t = 0; t < L; ++t) {
    EXPECT_TRUE(same(Kokkos::subview(out, all, 7 * t % 53, all, all), Kokkos::subview(want.out, all, t, all, all)));
  }
  EXPECT_TRUE(same(got.y, want.y)) << "y has no map";
  const auto values = values_of(out);
  const auto untouched = std::count_if(values.begin(), values.end(), [](double v) { return std::isnan(v); });
  EXPECT_EQ(untouched, (53 - L) * 2 * H * P);
}

TEST(SsdScan, RepeatedGroupsEqualOneGroupPerHead) {
  const ScanData<float> shared(full(), 2);
  run_scan(shared, rows_of(shared));
  ScanSetup setup = full();
  setup.shape.groups = 4;
  const ScanData<float> repeated(setup, 2);
  for (int h = 0; h < 4; ++h) {
    const auto copy = [&](const auto& to, const auto& from) {
      krait::test::assign(Kokkos::subview(to, Kokkos::ALL, Kokkos::ALL, h, Kokkos::ALL),
                          values_of(Kokkos::subview(from, Kokkos::ALL, Kokkos::ALL, h / 2, Kokkos::ALL)));
    };
    copy(repeated.B, shared.B);
    copy(repeated.C, shared.C);
  }
  run_scan(repeated, rows_of(repeated));
  expect_same_outputs(repeated, shared);
}

TEST(SsdScan, SkipPerHeadEqualsItsBroadcast) {
  const ScanData<float> per_head(full(), 2);
  run_scan(per_head, rows_of(per_head));
  ScanSetup setup = full();
  setup.skip = Skip::per_channel;
  const ScanData<float> per_channel(setup, 2);
  for (int p = 0; p < 5; ++p) {
    krait::test::assign(Kokkos::subview(per_channel.D_per_channel, Kokkos::ALL, p), values_of(per_head.D));
  }
  run_scan(per_channel, rows_of(per_channel));
  expect_same_outputs(per_channel, per_head);
}

TEST(SsdScan, RepeatsAreEqualBitForBit) {
  for (const std::int64_t segments : {1, 4}) {
    ScanSetup setup = full();
    setup.shape.length = 300;
    setup.options.segments = segments;
    const ScanData<float> first(setup, 2);
    const Exec exec;
    const SsdScanPlan<float> plan(exec, setup.shape, setup.options);
    krait::ssd_scan(exec, plan, first.arguments(), rows_of(first));
    for (int repeat = 0; repeat < 5; ++repeat) {
      const ScanData<float> again(setup, 2);
      krait::ssd_scan(exec, plan, again.arguments(), rows_of(again));
      expect_same_outputs(again, first);
    }
  }
}

/// Two tokens whose distance in memory does not fit 32 bits; only the pages of these two are ever touched.
TEST(SsdScan, RowsFurtherApartThanThirtyTwoBits) {
  using T = krait::bfloat16;
  constexpr std::int64_t far = (std::int64_t(1) << 31) + 40;
  ScanSetup setup;
  setup.shape = {.batch = 1, .length = 2, .heads = 1, .head_dim = 4, .groups = 1, .d_state = 4};
  const ScanData<T> want(setup, 1);
  run_scan(want, rows_of(want));
  const Kokkos::View<T*> memory(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::test::far"), far + 32);
  const auto at = [&](std::int64_t offset) {
    return krait::make_tensor<T****, Exec, 4>(memory.data() + offset, {1, 2, 1, 4}, {0, far, 4, 1});
  };
  krait::test::assign(at(0), values_of(want.x));
  krait::test::assign(at(4), values_of(want.B));
  krait::test::assign(at(8), values_of(want.C));
  const auto dt = krait::make_tensor<T***, Exec, 3>(memory.data() + 12, {1, 2, 1}, {0, far, 1});
  krait::test::assign(dt, values_of(want.dt));
  const ScanData<T> got(setup, 1);
  auto arguments = got.arguments();
  arguments.x = at(0);
  arguments.B = at(4);
  arguments.C = at(8);
  arguments.dt = dt;
  arguments.out = at(16);
  run_with(got, arguments);
  EXPECT_TRUE(same(at(16), want.out));
  EXPECT_TRUE(same(got.final_states, want.final_states));
}

TEST(SsdScan, SmallStepsKeepTheirRelativeAccuracy) {
  for (const double raw : {-16.0, -17.0, -20.0, -40.0}) {
    ScanSetup setup;
    setup.shape = {.batch = 1, .length = 1, .heads = 1, .head_dim = 1, .groups = 1, .d_state = 1};
    setup.skip = Skip::none;
    setup.dt_bias = false;
    const ScanData<float> data(setup, 1);
    krait::test::fill(data.dt, raw);
    krait::test::fill(data.x, 1);
    krait::test::fill(data.B, 1);
    krait::test::fill(data.C, 1);
    run_scan(data, rows_of(data));
    EXPECT_NEAR(values_of(data.out)[0] / std::log1p(std::exp(raw)), 1.0, 1e-6) << raw;
  }
}

TYPED_TEST(SsdScanTensors, ExtremeInputsRaiseNoFloatingPointException) {
  for (const std::int64_t segments : {1, 3}) {
    ScanSetup setup = full();
    setup.decay = Decay::mixed;
    setup.shape.length = 200;
    setup.options.segments = segments;
    const ScanData<TypeParam> data(setup, 2);
    auto z = values_of(data.z);
    for (std::size_t i = 0; i < z.size(); i += 3) z[i] = i % 2 == 0 ? 1000 : -1000;
    krait::test::assign(data.z, z);
    EXPECT_EQ(krait::test::raised_exceptions([&] { run_scan(data, rows_of(data)); }), "");
    for (const double value : values_of(data.out)) ASSERT_TRUE(std::isfinite(value));
  }
}

TEST(SsdScan, NeitherAllocatesNorFencesAndNamesItsPath) {
  ScanSetup setup = full();
  setup.options.segments = 3;
  const ScanData<float> data(setup, 2);
  const Exec exec;
  const SsdScanPlan<float> plan(exec, setup.shape, setup.options);
  const auto runs = rows_of(data);
  krait::ssd_scan(exec, plan, data.arguments(), runs);
  exec.fence();
  krait::test::CallbackRecorder recorder;
  krait::ssd_scan(exec, plan, data.arguments(), runs);
  EXPECT_THAT(recorder.allocations(), IsEmpty());
  EXPECT_THAT(recorder.copies(), IsEmpty());
  EXPECT_THAT(recorder.foreign_labels(), IsEmpty());
  for (const auto& fence : recorder.fences()) EXPECT_THAT(fence.label, Not(HasSubstr("krait"))) << fence.label;
  EXPECT_EQ(recorder.kernels().size(), 3U);
  EXPECT_THAT(recorder.regions(), testing::ElementsAre(AllOf(StartsWith("krait::ssd_scan["), HasSubstr(",float]"))));
}

// Errors. Each message names the function, the argument, what was given and what was expected.

template <class Change>
auto call_with(const Change& change) {
  return [change] {
    ScanData<float> data(full(), 2);
    auto arguments = data.arguments();
    change(arguments);
    run_with(data, arguments);
  };
}

template <class DataType>
using Right = Kokkos::View<DataType, Kokkos::LayoutRight>;

TEST(SsdScanErrors, EveryExtentIsChecked) {
  using Arguments = SsdScanArguments<float>;
  const auto says = [](const char* text) { return ThrowsMessage<ShapeError>(HasSubstr(text)); };
  EXPECT_THAT(call_with([](Arguments& a) { a.x = Right<float****>("v", 2, 44, 4, 5); }),
              says("krait::ssd_scan: x is (2, 44, 4, 5), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt = Right<float***>("v", 2, 45, 3); }),
              says("dt is (2, 45, 3), expected (2, 45, 4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.A = Right<float*>("v", 3); }), says("A is (3), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.B = Right<float****>("v", 2, 45, 1, 6); }),
              says("B is (2, 45, 1, 6), expected (2, 45, 2, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.C = Right<float****>("v", 2, 45, 2, 7); }),
              says("C is (2, 45, 2, 7), expected (2, 45, 2, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.D = Right<float*>("v", 5); }), says("D is (5), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.D = {};
                a.D_per_channel = Right<float**>("v", 4, 6);
              }),
              says("D_per_channel is (4, 6), expected (4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.z = Right<float****>("v", 1, 45, 4, 5); }),
              says("z is (1, 45, 4, 5), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_bias = Right<float*>("v", 1); }), says("dt_bias is (1), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.initial_states = Right<float****>("v", 1, 4, 5, 6); }),
              says("initial_states is (1, 4, 5, 6), expected (2, 4, 5, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.final_states = Right<float****>("v", 2, 4, 6, 5); }),
              says("final_states is (2, 4, 6, 5), expected (2, 4, 5, 6)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.out = {}; }), says("out is (0, 0, 0, 0), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.y = Right<float****>("v", 2, 45, 4, 4); }),
              says("y is (2, 45, 4, 4), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_map = Right<std::int64_t*>("v", 44); }),
              says("dt_map is (44), expected (45)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.out_map = Right<std::int64_t*>("v", 46); }),
              says("out_map is (46), expected (45)"));
}

TEST(SsdScanErrors, ArgumentsThatExcludeEachOther) {
  using Arguments = SsdScanArguments<float>;
  EXPECT_THAT(call_with([](Arguments& a) { a.D_per_channel = Right<float**>("v", 4, 5); }),
              ThrowsMessage<ConfigError>(HasSubstr("krait::ssd_scan: D and D_per_channel are both given")));
  EXPECT_THAT(call_with([](Arguments& a) { a.z = {}; }),
              ThrowsMessage<ConfigError>(HasSubstr("krait::ssd_scan: y is given without z")));
}

TEST(SsdScanErrors, RunsOfAnotherShape) {
  const auto run = [] {
    const ScanData<float> data(full(), 2);
    const Exec exec;
    const SsdScanPlan<float> plan(exec, data.setup.shape);
    krait::ssd_scan(exec, plan, data.arguments(), SequenceRuns::whole_rows(2, 44));
  };
  EXPECT_THAT(run, ThrowsMessage<ShapeError>(HasSubstr("runs are of 2 rows of 44 tokens, expected 2 rows of 45")));
}

TEST(SsdScanErrors, PlansThatCannotWork) {
  const auto plan = [](const SsdScanShape& shape, const SsdScanOptions& options = {}) {
    return [shape, options] { const SsdScanPlan<float> made(Exec(), shape, options); };
  };
  const auto says = [](const char* text) {
    return ThrowsMessage<ConfigError>(AllOf(HasSubstr("krait::SsdScanPlan: "), HasSubstr(text)));
  };
  const SsdScanShape good{.batch = 1, .length = 8, .heads = 4, .head_dim = 4, .groups = 2, .d_state = 4};
  const auto changed = [&](std::int64_t SsdScanShape::* member, std::int64_t value) {
    SsdScanShape shape = good;
    shape.*member = value;
    return shape;
  };
  EXPECT_THAT(plan(changed(&SsdScanShape::batch, -1)), says("batch = -1, expected 0 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::length, -2)), says("length = -2, expected 0 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::heads, 0)), says("heads = 0, expected 1 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::head_dim, 0)), says("head_dim = 0, expected 1 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::groups, 0)), says("groups = 0, expected 1 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::d_state, 0)), says("d_state = 0, expected 1 or more"));
  EXPECT_THAT(plan(changed(&SsdScanShape::groups, 3)), says("heads = 4 are not divisible by groups = 3"));
  EXPECT_THAT(plan(good, {.chunk_size = 0}), says("chunk_size = 0, expected 1 or more"));
  EXPECT_THAT(plan(good, {.segments = -1}), says("segments = -1, expected 0 or more"));
  EXPECT_THAT(plan(good, {.heads_per_group = -1}), says("heads_per_group = -1, expected 0 or more"));
  EXPECT_THAT(plan(good, {.first_head = -1}), says("first_head = -1, expected 0 or more"));
  EXPECT_THAT(plan(good, {.dt_min = 1, .dt_max = 0.5}), says("[1, 0.5], expected dt_min <= dt_max"));
  EXPECT_THAT(plan(good, {.heads_per_group = 3, .first_head = 3}),
              says("heads 3 to 6 of 3 per group read group 2, expected less than groups = 2"));
}

TEST(SsdScanErrors, AStateThatFitsNowhere) {
  const auto plan = [] {
    const SsdScanPlan<float> made(
        Exec(), {.batch = 1, .length = 8, .heads = 1, .head_dim = 8, .groups = 1, .d_state = std::int64_t(1) << 24});
  };
  EXPECT_THAT(plan, ThrowsMessage<krait::CapacityError>(HasSubstr("d_state = 16777216 needs")));
}

}  // namespace
