// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <krait/core/error.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <vector>

#include <support/callback_recorder.hpp>
#include <support/finite_differences.hpp>
#include <support/fp_exceptions.hpp>
#include <support/ssd_backward_data.hpp>

/// The scan's backward against finite differences of the scan itself; how it takes its tensors, what it refuses, and
/// what it never does.

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using krait::ConfigError;
using krait::SequenceRuns;
using krait::ShapeError;
using krait::SsdScanBackwardArguments;
using krait::SsdScanBackwardPlan;
using krait::SsdScanOptions;
using krait::SsdScanPlan;
using krait::SsdScanShape;
using krait::test::Decay;
using krait::test::expect_same_gradients;
using krait::test::poisoned_view;
using krait::test::run_scan_backward;
using krait::test::same;
using krait::test::ScanBackwardData;
using krait::test::ScanBackwardSetup;
using krait::test::Skip;
using krait::test::values_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;
using testing::ThrowsMessage;

ScanBackwardSetup full() {
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = 2, .length = 45, .heads = 4, .head_dim = 5, .groups = 2, .d_state = 6};
  setup.forward.gate = true;
  setup.forward.initial_states = true;
  return setup;
}

template <class T>
SequenceRuns rows_of(const ScanBackwardData<T>& data) {
  return SequenceRuns::whole_rows(data.setup.forward.shape.batch, data.setup.forward.shape.length);
}

template <class T>
void run_with(const ScanBackwardData<T>& data, const SsdScanBackwardArguments<T>& arguments) {
  const Exec exec;
  const SsdScanBackwardPlan<T> plan(exec, data.setup.forward.shape, data.setup.forward.options, data.setup.tiling);
  krait::ssd_scan_backward(exec, plan, arguments, rows_of(data));
}

/// Steps that the clamp holds, and no step so close to its ends that a difference quotient would cross them.
void clamp_some(ScanBackwardData<double>& data) {
  auto& options = data.setup.forward.options;
  auto raw = values_of(data.forward.dt);
  const auto bias = values_of(data.forward.dt_bias);
  const auto step = [&](std::size_t i) { return krait::reference::softplus(raw[i] + bias[i % bias.size()]); };
  std::vector<double> steps(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) steps[i] = step(i);
  std::sort(steps.begin(), steps.end());
  const auto between = [&](std::size_t i) { return (steps[i] + steps[i + 1]) / 2; };
  options.dt_min = between(steps.size() / 4);
  options.dt_max = between(3 * steps.size() / 4);
  for (const double value : steps) {
    ASSERT_GT(std::abs(value - options.dt_min), 1e-3 * value);
    ASSERT_GT(std::abs(value - options.dt_max), 1e-3 * value);
  }
}

TEST(SsdScanBackwardByDifferences, EveryGradientOfTheForwardKernel) {
  const SequenceRuns runs(1, 9, {{0, 0, 5, 0}, {0, 6, 9, 1}}, 2);
  for (int bits = 0; bits < 8; ++bits) {
    SCOPED_TRACE(bits);
    ScanBackwardSetup setup;
    setup.forward.shape = {.batch = 1, .length = 9, .heads = 4, .head_dim = 2, .groups = 2, .d_state = 3};
    setup.forward.decay = (bits & 1) != 0 ? Decay::slow : Decay::model;
    setup.forward.gate = (bits & 2) != 0;
    setup.forward.skip = (bits & 2) != 0 ? Skip::per_channel : Skip::per_head;
    setup.forward.initial_states = true;
    setup.forward.options.chunk_size = 2;
    setup.forward.options.segments = (bits & 4) != 0 ? 2 : 1;
    ScanBackwardData<double> data(setup, runs);
    if ((bits & 4) != 0) clamp_some(data);
    const auto& options = data.setup.forward.options;
    const SsdScanPlan<double> plan(Exec(), setup.forward.shape, options);
    const auto dout = values_of(data.dout), dfinal = values_of(data.dfinal_states);
    const auto arguments = data.forward.arguments();
    const auto loss = [&] {
      krait::ssd_scan<double>(Exec(), plan, arguments, runs);
      return krait::test::weighted_sum(dout, values_of(data.forward.out)) +
             krait::test::weighted_sum(dfinal, values_of(data.forward.final_states));
    };
    loss();  // stores y
    run_scan_backward(data, runs);
    const auto expect = [&](const char* name, const auto& gradient, const auto& input, double there = 0) {
      if (!input.is_allocated()) return;
      auto got = values_of(gradient);
      for (double& value : got) value -= there;
      const auto want = krait::test::finite_differences(input, loss);
      EXPECT_TRUE(krait::test::all_close(got, want, krait::test::by_differences())) << name;
    };
    constexpr double there = ScanBackwardData<double>::already_there;
    expect("dx", data.dx, data.forward.x);
    expect("ddt", data.ddt, data.forward.dt);
    expect("dB", data.dB, data.forward.B);
    expect("dC", data.dC, data.forward.C);
    expect("dz", data.dz, data.forward.z);
    expect("dinitial_states", data.dinitial_states, data.forward.initial_states);
    expect("dA", data.dA, data.forward.A, there);
    expect("ddt_bias", data.ddt_bias, data.forward.dt_bias, there);
    if (data.dD.is_allocated()) expect("dD", data.dD, data.forward.D, there);
    if (data.dD_per_channel.is_allocated()) {
      expect("dD_per_channel", data.dD_per_channel, data.forward.D_per_channel, there);
    }
  }
}

template <class T>
class SsdScanBackwardTensors : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(SsdScanBackwardTensors, Scalars);

/// Heads of a group in several calls, in ascending order: each adds to what those before have left in dB and dC. In
/// float and double the bits are those of one call that adds up head by head; two bytes are rounded after every call.
TYPED_TEST(SsdScanBackwardTensors, HeadsOfAGroupInSeveralCalls) {
  using T = TypeParam;
  ScanBackwardSetup setup = full();
  setup.forward.shape.heads = 6;  // groups of 3
  setup.tiling.head_block = 1;
  const SequenceRuns runs(2, 45, {{0, 3, 20, 0}, {0, 20, 45, 1}, {1, 0, 31, 2}}, 3);  // and tokens of no run
  const ScanBackwardData<T> want(setup, runs);
  run_scan_backward(want, runs);
  for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{0, 2, 4, 6}, {0, 1, 5, 6}, {0, 1, 2, 3, 6}}) {
    const ScanBackwardData<T> got(setup, runs);
    for (std::size_t k = 1; k < cuts.size(); ++k) {
      const std::int64_t first = cuts[k - 1], heads = cuts[k] - first, group = first / 3;
      const auto of_heads = Kokkos::make_pair(first, cuts[k]);
      const auto of_groups = Kokkos::make_pair(group, (cuts[k] - 1) / 3 + 1);
      SsdScanShape shape = setup.forward.shape;
      shape.heads = heads;
      shape.groups = of_groups.second - of_groups.first;
      SsdScanOptions options = setup.forward.options;
      options.heads_per_group = 3;
      options.first_head = first - 3 * group;
      const auto cut = [](const auto& view, const auto& range) {
        return Kokkos::subview(view, Kokkos::ALL, Kokkos::ALL, range, Kokkos::ALL);
      };
      const auto cut_states = [&](const auto& view) {
        return Kokkos::subview(view, Kokkos::ALL, of_heads, Kokkos::ALL, Kokkos::ALL);
      };
      const auto cut_dt = [&](const auto& view) { return Kokkos::subview(view, Kokkos::ALL, Kokkos::ALL, of_heads); };
      const auto cut_vector = [&](const auto& view) { return Kokkos::subview(view, of_heads); };
      SsdScanBackwardArguments<T> a;
      a.x = cut(got.forward.x, of_heads);
      a.dt = cut_dt(got.forward.dt);
      a.A = cut_vector(got.forward.A);
      a.B = cut(got.forward.B, of_groups);
      a.C = cut(got.forward.C, of_groups);
      a.D = cut_vector(got.forward.D);
      a.z = cut(got.forward.z, of_heads);
      a.dt_bias = cut_vector(got.forward.dt_bias);
      a.initial_states = cut_states(got.forward.initial_states);
      a.y = cut(got.forward.y, of_heads);
      a.dout = cut(got.dout, of_heads);
      a.dfinal_states = cut_states(got.dfinal_states);
      a.dx = cut(got.dx, of_heads);
      a.dz = cut(got.dz, of_heads);
      a.ddt = cut_dt(got.ddt);
      a.dB = cut(got.dB, of_groups);
      a.dC = cut(got.dC, of_groups);
      a.begun_groups = first % 3 == 0 ? 0 : 1;
      a.dA = cut_vector(got.dA);
      a.dD = cut_vector(got.dD);
      a.ddt_bias = cut_vector(got.ddt_bias);
      a.dinitial_states = cut_states(got.dinitial_states);
      krait::ssd_scan_backward(Exec(), SsdScanBackwardPlan<T>(Exec(), shape, options, setup.tiling), a, runs);
    }
    if constexpr (sizeof(T) > 2) {
      expect_same_gradients(got, want);
    } else {
      krait::test::expect_gradients(got, runs);
    }
  }
}

/// z | x | B | C | dt, and their gradients, cut out of one projection each and not copied.
TYPED_TEST(SsdScanBackwardTensors, SlicesOfOneProjection) {
  using T = TypeParam;
  const ScanBackwardData<T> want(full(), SequenceRuns::whole_rows(2, 45));
  run_scan_backward(want, rows_of(want));

  const auto& s = want.setup.forward.shape;
  const std::int64_t HP = s.heads * s.head_dim, GN = s.groups * s.d_state;
  const std::int64_t width = 2 * HP + 2 * GN + s.heads;
  struct Projection {
    Kokkos::View<T***, Kokkos::LayoutRight> memory;
    krait::Tensor<T****, Exec> z, x, B, C;
    krait::Tensor<T***, Exec> dt;
  };
  const auto projection = [&] {
    const auto wide = krait::test::poisoned_view<Kokkos::View<T***, Kokkos::LayoutRight>>(s.batch, s.length, width);
    const auto cut = [&](std::int64_t offset, std::int64_t outer, std::int64_t inner) {
      return krait::make_tensor<T****, Exec, 4>(wide.data() + offset, {s.batch, s.length, outer, inner},
                                                {s.length * width, width, inner, 1});
    };
    return Projection{wide,
                      cut(0, s.heads, s.head_dim),
                      cut(HP, s.heads, s.head_dim),
                      cut(2 * HP, s.groups, s.d_state),
                      cut(2 * HP + GN, s.groups, s.d_state),
                      krait::make_tensor<T***, Exec, 3>(wide.data() + 2 * HP + 2 * GN, {s.batch, s.length, s.heads},
                                                        {s.length * width, width, 1})};
  };
  const Projection in = projection(), gradients = projection();
  krait::test::assign(in.z, values_of(want.forward.z));
  krait::test::assign(in.x, values_of(want.forward.x));
  krait::test::assign(in.B, values_of(want.forward.B));
  krait::test::assign(in.C, values_of(want.forward.C));
  krait::test::assign(in.dt, values_of(want.forward.dt));
  const ScanBackwardData<T> got(full(), rows_of(want));
  auto arguments = got.arguments();
  arguments.x = in.x;
  arguments.B = in.B;
  arguments.C = in.C;
  arguments.z = in.z;
  arguments.dt = in.dt;
  arguments.dx = gradients.x;
  arguments.dB = gradients.B;
  arguments.dC = gradients.C;
  arguments.dz = gradients.z;
  arguments.ddt = gradients.dt;
  run_with(got, arguments);
  EXPECT_TRUE(same(gradients.x, want.dx));
  EXPECT_TRUE(same(gradients.B, want.dB));
  EXPECT_TRUE(same(gradients.C, want.dC));
  EXPECT_TRUE(same(gradients.z, want.dz));
  EXPECT_TRUE(same(gradients.dt, want.ddt));
}

TYPED_TEST(SsdScanBackwardTensors, LayoutLeft) {
  using T = TypeParam;
  using V = krait::accumulator_t<T>;
  const ScanBackwardData<T> want(full(), SequenceRuns::whole_rows(2, 45));
  run_scan_backward(want, rows_of(want));
  const auto left = [](const auto& view) {
    using Right = std::decay_t<decltype(view)>;
    typename Kokkos::View<typename Right::non_const_data_type, Kokkos::LayoutLeft> copy(
        "left", view.extent(0), view.extent(1), view.extent(2), view.extent(3));
    krait::test::assign(copy, values_of(view));
    return copy;
  };
  const ScanBackwardData<T> got(full(), rows_of(want));
  const auto x = left(got.forward.x), B = left(got.forward.B), C = left(got.forward.C), z = left(got.forward.z),
             y = left(got.forward.y), dout = left(got.dout), dx = left(got.dx), dB = left(got.dB), dC = left(got.dC),
             dz = left(got.dz);
  const Kokkos::View<V****, Kokkos::LayoutLeft> initial = left(got.forward.initial_states),
                                                dfinal = left(got.dfinal_states), dinitial = left(got.dinitial_states);
  const Kokkos::View<T***, Kokkos::LayoutLeft> ddt("left", 2, 45, 4);
  auto arguments = got.arguments();
  arguments.x = x;
  arguments.B = B;
  arguments.C = C;
  arguments.z = z;
  arguments.y = y;
  arguments.initial_states = initial;
  arguments.dout = dout;
  arguments.dfinal_states = dfinal;
  arguments.dx = dx;
  arguments.dB = dB;
  arguments.dC = dC;
  arguments.dz = dz;
  arguments.ddt = ddt;
  arguments.dinitial_states = dinitial;
  run_with(got, arguments);
  EXPECT_TRUE(same(dx, want.dx));
  EXPECT_TRUE(same(dB, want.dB));
  EXPECT_TRUE(same(dC, want.dC));
  EXPECT_TRUE(same(dz, want.dz));
  EXPECT_TRUE(same(ddt, want.ddt));
  EXPECT_TRUE(same(dinitial, want.dinitial_states));
}

TEST(SsdScanBackward, PlacesOfStepsAndOutputs) {
  const ScanBackwardData<float> want(full(), SequenceRuns::whole_rows(2, 45));
  run_scan_backward(want, rows_of(want));
  constexpr std::int64_t L = 45, H = 4, P = 5;
  // Token t of dt lies at 50 - t, that of dout at 7 t modulo 53: both have more places than tokens.
  const Kokkos::View<std::int64_t*> dt_map("dt_map", L), out_map("out_map", L);
  const auto dt = krait::test::poisoned_view<ScanBackwardData<float>::View<float***>>(2, 51, H);
  const auto ddt = krait::test::poisoned_view<ScanBackwardData<float>::View<float***>>(2, 51, H);
  const auto dout = krait::test::poisoned_view<ScanBackwardData<float>::View<float****>>(2, 53, H, P);
  const auto host_dt_map = Kokkos::create_mirror_view(dt_map);
  const auto host_out_map = Kokkos::create_mirror_view(out_map);
  const auto all = Kokkos::ALL;
  for (std::int64_t t = 0; t < L; ++t) {
    host_dt_map(t) = 50 - t;
    host_out_map(t) = 7 * t % 53;
    krait::test::assign(Kokkos::subview(dt, all, 50 - t, all),
                        values_of(Kokkos::subview(want.forward.dt, all, t, all)));
    krait::test::assign(Kokkos::subview(dout, all, 7 * t % 53, all, all),
                        values_of(Kokkos::subview(want.dout, all, t, all, all)));
  }
  Kokkos::deep_copy(dt_map, host_dt_map);
  Kokkos::deep_copy(out_map, host_out_map);
  for (const std::int64_t segments : {1, 3}) {
    ScanBackwardSetup setup = full();
    setup.forward.options.segments = segments;
    const ScanBackwardData<float> reference(setup, rows_of(want));
    run_scan_backward(reference, rows_of(want));
    const ScanBackwardData<float> got(setup, rows_of(want));
    auto arguments = got.arguments();
    arguments.dt = dt;
    arguments.dout = dout;
    arguments.ddt = ddt;
    arguments.dt_map = dt_map;
    arguments.out_map = out_map;
    krait::test::poison(ddt);
    run_with(got, arguments);
    for (std::int64_t t = 0; t < L; ++t) {
      EXPECT_TRUE(same(Kokkos::subview(ddt, all, 50 - t, all), Kokkos::subview(reference.ddt, all, t, all)));
    }
    const auto values = values_of(ddt);
    EXPECT_EQ(std::count_if(values.begin(), values.end(), [](double v) { return std::isnan(v); }), (51 - L) * 2 * H);
    EXPECT_TRUE(same(got.dx, reference.dx));
    EXPECT_TRUE(same(got.dz, reference.dz));
    EXPECT_TRUE(same(got.dinitial_states, reference.dinitial_states));
  }
}

/// What is not asked for is not written, and the rest is as if it had been.
TEST(SsdScanBackward, OptionalGradients) {
  const ScanBackwardData<float> want(full(), SequenceRuns::whole_rows(2, 45));
  run_scan_backward(want, rows_of(want));
  const ScanBackwardData<float> got(full(), rows_of(want));
  auto arguments = got.arguments();
  arguments.dA = {};
  arguments.dD = {};
  arguments.ddt_bias = {};
  arguments.dinitial_states = {};
  run_with(got, arguments);
  EXPECT_TRUE(same(got.dx, want.dx));
  EXPECT_TRUE(same(got.ddt, want.ddt));
  EXPECT_TRUE(same(got.dB, want.dB));
  EXPECT_TRUE(same(got.dC, want.dC));
}

/// With the tiling of the plan and with tiles, segments and parts that are all in use.
TYPED_TEST(SsdScanBackwardTensors, SameBitsInManyCallsOnAnyNumberOfThreads) {
  const auto one_thread = Kokkos::Experimental::partition_space(Exec(), 1, 1)[0];
  for (const std::int64_t segments : {1, 4}) {
    for (const bool small : {false, true}) {
      ScanBackwardSetup setup = full();
      setup.forward.shape.length = 300;
      setup.forward.options.segments = segments;
      if (small) setup.tiling = {.chunk = 10, .head_block = 1, .kept_chunks = 2};
      const ScanBackwardData<TypeParam> first(setup, SequenceRuns::whole_rows(2, 300));
      run_scan_backward(first, rows_of(first));
      const SsdScanBackwardPlan<TypeParam> all_threads(Exec(), setup.forward.shape, setup.forward.options,
                                                       setup.tiling);
      const SsdScanBackwardPlan<TypeParam> alone(one_thread, setup.forward.shape, setup.forward.options, setup.tiling);
      for (int repeat = 0; repeat < 10; ++repeat) {
        for (const bool single : {false, true}) {
          const ScanBackwardData<TypeParam> again(setup, rows_of(first));
          krait::ssd_scan_backward(single ? one_thread : Exec(), single ? alone : all_threads, again.arguments(),
                                   rows_of(first));
          expect_same_gradients(again, first);
        }
      }
    }
  }
}

/// A call leaves NaN all over the workspace; the next one must not see them, whatever its runs are.
TEST(SsdScanBackward, NothingOfACallIsSeenByTheNext) {
  ScanBackwardSetup setup = full();
  setup.forward.options.segments = 3;
  setup.tiling = {.chunk = 4, .head_block = 1, .kept_chunks = 2};
  const SequenceRuns pieces(2, 45, {{0, 1, 20, 0}, {0, 21, 45, 1}, {1, 0, 9, 2}, {1, 9, 40, 3}}, 4);
  for (const bool states : {true, false}) {
    setup.forward.initial_states = states;
    setup.final_states = states;
    const ScanBackwardData<float> want(setup, pieces), got(setup, pieces);
    run_scan_backward(want, pieces);
    const ScanBackwardData<float> spoiled(setup, SequenceRuns::whole_rows(2, 45));
    krait::test::poison(spoiled.forward.x);
    krait::test::poison(spoiled.dout);
    const SsdScanBackwardPlan<float> plan(Exec(), setup.forward.shape, setup.forward.options, setup.tiling);
    krait::ssd_scan_backward(Exec(), plan, spoiled.arguments(), SequenceRuns::whole_rows(2, 45));
    krait::ssd_scan_backward(Exec(), plan, got.arguments(), pieces);
    expect_same_gradients(got, want);
  }
}

/// Two tokens whose distance in memory does not fit 32 bits; only the pages of these two are ever touched.
TEST(SsdScanBackward, RowsFurtherApartThanThirtyTwoBits) {
  using T = krait::bfloat16;
  constexpr std::int64_t far = (std::int64_t(1) << 31) + 60;
  ScanBackwardSetup setup;
  setup.forward.shape = {.batch = 1, .length = 2, .heads = 1, .head_dim = 4, .groups = 1, .d_state = 4};
  const ScanBackwardData<T> want(setup, SequenceRuns::whole_rows(1, 2));
  run_scan_backward(want, rows_of(want));
  const Kokkos::View<T*> memory(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::test::far"), far + 64);
  const auto at = [&](std::int64_t offset) {
    return krait::make_tensor<T****, Exec, 4>(memory.data() + offset, {1, 2, 1, 4}, {0, far, 4, 1});
  };
  const auto steps_at = [&](std::int64_t offset) {
    return krait::make_tensor<T***, Exec, 3>(memory.data() + offset, {1, 2, 1}, {0, far, 1});
  };
  krait::test::assign(at(0), values_of(want.forward.x));
  krait::test::assign(at(4), values_of(want.forward.B));
  krait::test::assign(at(8), values_of(want.forward.C));
  krait::test::assign(at(12), values_of(want.dout));
  krait::test::assign(steps_at(16), values_of(want.forward.dt));
  const ScanBackwardData<T> got(setup, rows_of(want));
  auto arguments = got.arguments();
  arguments.x = at(0);
  arguments.B = at(4);
  arguments.C = at(8);
  arguments.dout = at(12);
  arguments.dt = steps_at(16);
  arguments.dx = at(20);
  arguments.dB = at(24);
  arguments.dC = at(28);
  arguments.ddt = steps_at(32);
  run_with(got, arguments);
  EXPECT_TRUE(same(at(20), want.dx));
  EXPECT_TRUE(same(at(24), want.dB));
  EXPECT_TRUE(same(at(28), want.dC));
  EXPECT_TRUE(same(steps_at(32), want.ddt));
}

/// The slope of softplus at steps that are far below the last bit of 1.
TEST(SsdScanBackward, SmallStepsKeepTheirRelativeAccuracy) {
  for (const double raw : {-16.0, -20.0, -40.0, -80.0}) {
    ScanBackwardSetup setup;
    setup.forward.shape = {.batch = 1, .length = 1, .heads = 1, .head_dim = 1, .groups = 1, .d_state = 1};
    setup.forward.skip = Skip::none;
    setup.forward.dt_bias = false;
    setup.final_states = false;
    const ScanBackwardData<float> data(setup, SequenceRuns::whole_rows(1, 1));
    krait::test::fill(data.forward.dt, raw);
    for (const auto& view : {data.forward.x, data.forward.B, data.forward.C, data.dout}) krait::test::fill(view, 1);
    run_scan_backward(data, rows_of(data));
    // out = delta x B C
    EXPECT_NEAR(values_of(data.ddt)[0] * (1 + std::exp(-raw)), 1.0, 2e-6) << raw;
    EXPECT_NEAR(values_of(data.dx)[0] / std::log1p(std::exp(raw)), 1.0, 2e-6) << raw;
  }
}

TYPED_TEST(SsdScanBackwardTensors, ExtremeInputsRaiseNoFloatingPointException) {
  for (const std::int64_t segments : {1, 3}) {
    ScanBackwardSetup setup = full();
    setup.forward.decay = Decay::mixed;
    setup.forward.shape.length = 200;
    setup.forward.options.segments = segments;
    const ScanBackwardData<TypeParam> data(setup, SequenceRuns::whole_rows(2, 200));
    auto z = values_of(data.forward.z);
    for (std::size_t i = 0; i < z.size(); i += 3) z[i] = i % 2 == 0 ? 1000 : -1000;
    krait::test::assign(data.forward.z, z);
    // Small enough that the gradients, too, can be stored in 16 bits.
    krait::test::fill_normal(data.dout, 3, 0, 1e-2);
    EXPECT_EQ(krait::test::raised_exceptions([&] { run_scan_backward(data, rows_of(data)); }), "");
    data.for_each_gradient([](const char* name, const auto& view) {
      for (const double value : values_of(view)) ASSERT_TRUE(std::isfinite(value)) << name;
    });
  }
}

TEST(SsdScanBackward, NeitherAllocatesNorFencesAndNamesItsPath) {
  ScanBackwardSetup setup = full();
  setup.forward.options.segments = 3;
  setup.tiling.head_block = 1;
  const ScanBackwardData<float> data(setup, SequenceRuns::whole_rows(2, 45));
  const Exec exec;
  const SsdScanBackwardPlan<float> plan(exec, setup.forward.shape, setup.forward.options, setup.tiling);
  const auto runs = rows_of(data);
  krait::ssd_scan_backward(exec, plan, data.arguments(), runs);
  exec.fence();
  krait::test::CallbackRecorder recorder;
  krait::ssd_scan_backward(exec, plan, data.arguments(), runs);
  EXPECT_THAT(recorder.allocations(), IsEmpty());
  EXPECT_THAT(recorder.copies(), IsEmpty());
  EXPECT_THAT(recorder.foreign_labels(), IsEmpty());
  for (const auto& fence : recorder.fences()) EXPECT_THAT(fence.label, Not(HasSubstr("krait"))) << fence.label;
  for (const auto& kernel : recorder.kernels()) EXPECT_THAT(kernel.label, StartsWith("krait::ssd_scan_backward"));
  // Initial states are cleared, two sweeps find what crosses the cuts, and dB, dC and parameters are summed.
  EXPECT_EQ(recorder.kernels().size(), 8U);
  EXPECT_THAT(recorder.regions(),
              testing::ElementsAre(AllOf(StartsWith("krait::ssd_scan_backward["), HasSubstr(",float]"))));
}

// Errors. Each message names the function, the argument, what was given and what was expected.

template <class Change>
auto call_with(const Change& change) {
  return [change] {
    const ScanBackwardData<float> data(full(), SequenceRuns::whole_rows(2, 45));
    auto arguments = data.arguments();
    change(arguments);
    run_with(data, arguments);
  };
}

template <class DataType>
using Right = Kokkos::View<DataType, Kokkos::LayoutRight>;

TEST(SsdScanBackwardErrors, EveryExtentIsChecked) {
  using Arguments = SsdScanBackwardArguments<float>;
  const auto says = [](const char* text) {
    return ThrowsMessage<ShapeError>(AllOf(StartsWith("krait::ssd_scan_backward: "), HasSubstr(text)));
  };
  const auto wrong = [](auto Arguments::* member) {
    return call_with([member](Arguments& a) { a.*member = Right<float****>("v", 2, 45, 4, 7); });
  };
  const char* heads = " is (2, 45, 4, 7), expected (2, 45, 4, 5)";
  EXPECT_THAT(wrong(&Arguments::x), says((std::string("x") + heads).c_str()));
  EXPECT_THAT(wrong(&Arguments::z), says((std::string("z") + heads).c_str()));
  EXPECT_THAT(wrong(&Arguments::y), says((std::string("y") + heads).c_str()));
  EXPECT_THAT(wrong(&Arguments::dout), says((std::string("dout") + heads).c_str()));
  EXPECT_THAT(wrong(&Arguments::dx), says((std::string("dx") + heads).c_str()));
  EXPECT_THAT(wrong(&Arguments::dz), says((std::string("dz") + heads).c_str()));
  const char* groups = " is (2, 45, 4, 7), expected (2, 45, 2, 6)";
  EXPECT_THAT(wrong(&Arguments::B), says((std::string("B") + groups).c_str()));
  EXPECT_THAT(wrong(&Arguments::C), says((std::string("C") + groups).c_str()));
  EXPECT_THAT(wrong(&Arguments::dB), says((std::string("dB") + groups).c_str()));
  EXPECT_THAT(wrong(&Arguments::dC), says((std::string("dC") + groups).c_str()));
  const char* states = " is (2, 45, 4, 7), expected (2, 4, 5, 6)";
  EXPECT_THAT(wrong(&Arguments::initial_states), says((std::string("initial_states") + states).c_str()));
  EXPECT_THAT(wrong(&Arguments::dfinal_states), says((std::string("dfinal_states") + states).c_str()));
  EXPECT_THAT(wrong(&Arguments::dinitial_states), says((std::string("dinitial_states") + states).c_str()));

  EXPECT_THAT(call_with([](Arguments& a) { a.dt = Right<float***>("v", 2, 45, 3); }),
              says("dt is (2, 45, 3), expected (2, 45, 4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.ddt = Right<float***>("v", 2, 44, 4); }),
              says("ddt is (2, 44, 4), expected (2, 45, 4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.A = Right<float*>("v", 3); }), says("A is (3), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dA = Right<float*>("v", 3); }), says("dA is (3), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.D = Right<float*>("v", 5); }), says("D is (5), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dD = Right<float*>("v", 5); }), says("dD is (5), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_bias = Right<float*>("v", 1); }), says("dt_bias is (1), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.ddt_bias = Right<float*>("v", 1); }),
              says("ddt_bias is (1), expected (4)"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.D = {};
                a.dD = {};
                a.D_per_channel = Right<float**>("v", 4, 5);
                a.dD_per_channel = Right<float**>("v", 4, 6);
              }),
              says("dD_per_channel is (4, 6), expected (4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dx = {}; }), says("dx is (0, 0, 0, 0), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.y = {}; }), says("y is (0, 0, 0, 0), expected (2, 45, 4, 5)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_map = Right<std::int64_t*>("v", 44); }),
              says("dt_map is (44), expected (45)"));
  EXPECT_THAT(call_with([](Arguments& a) { a.begun_groups = 3; }), says("begun_groups is 3, expected 0 to 2"));
  EXPECT_THAT(call_with([](Arguments& a) { a.begun_groups = -1; }), says("begun_groups is -1, expected 0 to 2"));
}

TEST(SsdScanBackwardErrors, ArgumentsThatExcludeOrNeedEachOther) {
  using Arguments = SsdScanBackwardArguments<float>;
  const auto says = [](const char* text) {
    return ThrowsMessage<ConfigError>(AllOf(StartsWith("krait::ssd_scan_backward: "), HasSubstr(text)));
  };
  EXPECT_THAT(call_with([](Arguments& a) { a.D_per_channel = Right<float**>("v", 4, 5); }),
              says("D and D_per_channel are both given"));
  EXPECT_THAT(call_with([](Arguments& a) { a.z = {}; }), says("y is given without z"));
  EXPECT_THAT(call_with([](Arguments& a) {
                a.z = {};
                a.y = {};
              }),
              says("dz is given without z"));
  EXPECT_THAT(call_with([](Arguments& a) { a.D = {}; }), says("dD is given without D"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dD_per_channel = Right<float**>("v", 4, 5); }),
              says("dD_per_channel is given without D_per_channel"));
  EXPECT_THAT(call_with([](Arguments& a) { a.dt_bias = {}; }), says("ddt_bias is given without dt_bias"));
}

// In the caller's memory, whatever it holds, the same bits; the plan then has none of its own.
TEST(SsdScanBackward, TheWorkspaceMayBeTheCallers) {
  const auto runs = SequenceRuns::whole_rows(2, 45);
  const ScanBackwardData<float> own(full(), runs);
  const ScanBackwardData<float> given(full(), runs);
  run_scan_backward(own, runs);
  const SsdScanBackwardPlan<float> plan(Exec(), given.setup.forward.shape, given.setup.forward.options,
                                        given.setup.tiling);
  const auto memory = poisoned_view<Right<float*>>((plan.workspace_bytes() + 3) / 4);
  auto arguments = given.arguments();
  arguments.workspace = krait::make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(memory.data()),
                                                                {static_cast<std::int64_t>(plan.workspace_bytes())});
  krait::ssd_scan_backward(Exec(), plan, arguments, runs);
  Exec().fence("krait::test: gradients are ready");
  expect_same_gradients(given, own);
  EXPECT_EQ(plan.workspace().bytes(), 0U);

  arguments.workspace = krait::make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(memory.data()), {4});
  EXPECT_THAT(
      [&] { krait::ssd_scan_backward(Exec(), plan, arguments, runs); },
      ThrowsMessage<krait::CapacityError>(HasSubstr("krait::ssd_scan_backward: workspace has 4 bytes, expected")));
  arguments.workspace = krait::make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(memory.data()) + 1,
                                                                {static_cast<std::int64_t>(plan.workspace_bytes())});
  EXPECT_THAT([&] { krait::ssd_scan_backward(Exec(), plan, arguments, runs); },
              ThrowsMessage<ShapeError>(HasSubstr("workspace must be contiguous and begin at a multiple of 4 bytes")));
}

TEST(SsdScanBackwardErrors, RunsOfAnotherShape) {
  const auto run = [] {
    const ScanBackwardData<float> data(full(), SequenceRuns::whole_rows(2, 45));
    const SsdScanBackwardPlan<float> plan(Exec(), data.setup.forward.shape);
    krait::ssd_scan_backward(Exec(), plan, data.arguments(), SequenceRuns::whole_rows(2, 44));
  };
  EXPECT_THAT(run, ThrowsMessage<ShapeError>(HasSubstr("runs are of 2 rows of 44 tokens, expected 2 rows of 45")));
}

TEST(SsdScanBackwardErrors, PlansThatCannotWork) {
  const auto plan = [](const SsdScanShape& shape, const SsdScanOptions& options = {}) {
    return [shape, options] { const SsdScanBackwardPlan<float> made(Exec(), shape, options); };
  };
  const auto says = [](const char* text) {
    return ThrowsMessage<ConfigError>(AllOf(StartsWith("krait::SsdScanBackwardPlan: "), HasSubstr(text)));
  };
  const SsdScanShape good{.batch = 1, .length = 8, .heads = 4, .head_dim = 4, .groups = 2, .d_state = 4};
  SsdScanShape bad = good;
  bad.groups = 3;
  EXPECT_THAT(plan(bad), says("heads = 4 are not divisible by groups = 3"));
  EXPECT_THAT(plan(good, {.chunk_size = 0}), says("chunk_size = 0, expected 1 or more"));
  EXPECT_THAT(plan(good, {.dt_min = 1, .dt_max = 0.5}), says("[1, 0.5], expected dt_min <= dt_max"));
}

TEST(SsdScanBackwardErrors, AStateThatFitsNowhere) {
  const auto plan = [] {
    const SsdScanBackwardPlan<float> made(
        Exec(), {.batch = 1, .length = 8, .heads = 1, .head_dim = 1, .groups = 1, .d_state = std::int64_t(1) << 24});
  };
  EXPECT_THAT(plan, ThrowsMessage<krait::CapacityError>(
                        AllOf(StartsWith("krait::SsdScanBackwardPlan: "), HasSubstr("scratch memory for a team"))));
}

}  // namespace
