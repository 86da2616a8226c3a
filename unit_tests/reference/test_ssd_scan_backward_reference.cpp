// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <krait/core/runs.hpp>
#include <krait/reference/ssd_scan_backward.hpp>
#include <vector>

#include <support/finite_differences.hpp>

/// Every gradient of the reference scan against finite differences of the reference scan.

namespace {

using krait::SequenceRuns;
using krait::reference::SsdScan;
using krait::test::all_close;
using krait::test::by_differences;
using krait::test::finite_differences;
using krait::test::normal_numbers;
using krait::test::weighted_sum;

enum class Skip { none, per_head, per_channel };

struct Case {
  std::int64_t heads = 4, head_dim = 2, groups = 2, d_state = 3;
  Skip skip = Skip::per_head;
  bool gate = false;
  bool softplus = true;
  bool dt_bias = true;
  bool clamp = false;
  bool initial_states = false;
  bool final_states = false;
  double decay = 1;  ///< A is around -decay
  std::int64_t heads_per_group = 0, first_head = 0;
};

/// Steps before the clamp spread over about 0.1 ... 2.
SsdScan make_scan(const Case& c, const SequenceRuns& runs) {
  const std::int64_t tokens = runs.rows() * runs.length();
  const std::int64_t inner = c.heads * c.head_dim;
  SsdScan scan{.heads = c.heads,
               .head_dim = c.head_dim,
               .groups = c.groups,
               .d_state = c.d_state,
               .dt_softplus = c.softplus,
               .heads_per_group = c.heads_per_group,
               .first_head = c.first_head};
  scan.x = normal_numbers(1, tokens * inner);
  scan.dt = normal_numbers(2, tokens * c.heads);
  scan.A = normal_numbers(3, c.heads);
  for (double& value : scan.A) value = -c.decay * (1.5 + std::tanh(value));
  scan.B = normal_numbers(4, tokens * c.groups * c.d_state);
  scan.C = normal_numbers(5, tokens * c.groups * c.d_state);
  if (c.skip == Skip::per_head) scan.D = normal_numbers(6, c.heads);
  if (c.skip == Skip::per_channel) scan.D_per_channel = normal_numbers(6, inner);
  if (c.gate) scan.z = normal_numbers(7, tokens * inner);
  if (c.dt_bias) scan.dt_bias = normal_numbers(8, c.heads, 0, 0.3);
  if (c.initial_states) scan.initial_states = normal_numbers(9, runs.states() * inner * c.d_state);
  if (!c.softplus) {
    for (double& value : scan.dt) value = 1 + 0.7 * std::tanh(value);
  }
  if (c.clamp) {
    scan.dt_min = 0.5;
    scan.dt_max = 1;
  }
  return scan;
}

/// Raw steps are moved away from the edges of the clamp, where the loss has kinks. With a clamp some steps must lie
/// below it, some above and some inside.
void keep_off_the_edges(SsdScan& scan, bool clamp) {
  int below = 0, inside = 0, above = 0;
  for (std::size_t i = 0; i < scan.dt.size(); ++i) {
    const auto step = [&] {
      const double raw = scan.dt[i] + (scan.dt_bias.empty() ? 0 : scan.dt_bias[i % scan.dt_bias.size()]);
      return scan.dt_softplus ? krait::reference::softplus(raw) : raw;
    };
    while (std::abs(step() - scan.dt_min) < 0.02 || std::abs(step() - scan.dt_max) < 0.02) scan.dt[i] += 0.01;
    below += step() < scan.dt_min;
    inside += step() > scan.dt_min && step() < scan.dt_max;
    above += step() > scan.dt_max;
  }
  if (clamp) {
    ASSERT_GT(below, 0);
    ASSERT_GT(inside, 0);
    ASSERT_GT(above, 0);
  }
}

void expect_gradients(const Case& c, const SequenceRuns& runs) {
  SsdScan scan = make_scan(c, runs);
  keep_off_the_edges(scan, c.clamp);
  const std::vector<double> dout = normal_numbers(10, static_cast<std::int64_t>(scan.x.size()));
  const std::int64_t states = runs.states() * c.heads * c.head_dim * c.d_state;
  const std::vector<double> dfinal = c.final_states ? normal_numbers(11, states) : std::vector<double>();
  const auto loss = [&] {
    const auto result = krait::reference::ssd_scan(scan, runs);
    return weighted_sum(dout, result.out) + weighted_sum(dfinal, result.final_states);
  };
  const auto d = krait::reference::ssd_scan_backward(scan, runs, dout, dfinal);
  const auto expect = [&](const char* name, const std::vector<double>& got, std::vector<double>& input) {
    EXPECT_TRUE(all_close(got, finite_differences(input, loss), by_differences())) << "d" << name;
  };
  expect("x", d.x, scan.x);
  expect("dt", d.dt, scan.dt);
  expect("A", d.A, scan.A);
  expect("B", d.B, scan.B);
  expect("C", d.C, scan.C);
  expect("D", d.D, scan.D);
  expect("D_per_channel", d.D_per_channel, scan.D_per_channel);
  expect("z", d.z, scan.z);
  expect("dt_bias", d.dt_bias, scan.dt_bias);
  // An absent initial state is one of zeros.
  if (scan.initial_states.empty()) scan.initial_states.assign(static_cast<std::size_t>(states), 0.0);
  expect("initial_states", d.initial_states, scan.initial_states);
}

/// Two rows of 9 tokens: runs of 4, 0, 1 and 2 tokens with padding between them and after, then a row that begins with
/// padding. States are numbered out of order, and state 2 belongs to no run.
SequenceRuns packed_runs() { return {2, 9, {{0, 0, 4, 1}, {0, 4, 4, 0}, {0, 5, 6, 5}, {0, 6, 8, 3}, {1, 2, 9, 4}}, 6}; }

TEST(SsdScanBackwardReference, EveryOption) {
  const auto runs = packed_runs();
  for (const Skip skip : {Skip::none, Skip::per_head, Skip::per_channel}) {
    for (int bits = 0; bits < 16; ++bits) {
      const bool states = (bits & 8) != 0;
      const Case c{.skip = skip,
                   .gate = (bits & 1) != 0,
                   .softplus = (bits & 2) != 0,
                   .clamp = (bits & 4) != 0,
                   .initial_states = states,
                   .final_states = states};
      SCOPED_TRACE(testing::Message() << "skip " << static_cast<int>(skip) << ", bits " << bits);
      expect_gradients(c, runs);
    }
  }
}

TEST(SsdScanBackwardReference, WholeRows) {
  for (const std::int64_t length : {1, 2, 11})
    expect_gradients({.gate = true, .initial_states = true, .final_states = true}, SequenceRuns::whole_rows(2, length));
}

TEST(SsdScanBackwardReference, OneKindOfStateOnly) {
  expect_gradients({.initial_states = true}, packed_runs());
  expect_gradients({.final_states = true}, packed_runs());
}

TEST(SsdScanBackwardReference, WithoutBiasOfTheSteps) { expect_gradients({.dt_bias = false}, packed_runs()); }

/// The initial state still counts at the end of the row.
TEST(SsdScanBackwardReference, SlowDecay) {
  expect_gradients({.initial_states = true, .final_states = true, .decay = 1e-4}, SequenceRuns::whole_rows(1, 24));
}

TEST(SsdScanBackwardReference, HeadsThatBeginInsideAGroup) {
  expect_gradients({.heads = 5, .groups = 3, .gate = true, .heads_per_group = 3, .first_head = 2}, packed_runs());
  expect_gradients({.heads = 3, .groups = 1}, packed_runs());
  expect_gradients({.heads = 3, .groups = 3}, packed_runs());
}

/// Beyond 20 the softplus is the identity; far below, a step and its slope are nearly nothing.
TEST(SsdScanBackwardReference, EndsOfTheSoftplus) {
  const auto runs = SequenceRuns::whole_rows(1, 4);
  SsdScan scan = make_scan({.heads = 1, .head_dim = 1, .groups = 1, .d_state = 1, .dt_bias = false}, runs);
  scan.A = {-0.01};
  scan.dt = {25, -30, 21, 0.5};
  const std::vector<double> dout = normal_numbers(10, 4);
  const auto loss = [&] { return weighted_sum(dout, krait::reference::ssd_scan(scan, runs).out); };
  const auto d = krait::reference::ssd_scan_backward(scan, runs, dout, {});
  EXPECT_TRUE(all_close(d.dt, finite_differences(scan.dt, loss), by_differences()));
}

/// A step on the edge of the clamp counts as inside.
TEST(SsdScanBackwardReference, ClampIsClosed) {
  const auto runs = SequenceRuns::whole_rows(1, 3);
  SsdScan scan =
      make_scan({.heads = 1, .head_dim = 1, .groups = 1, .d_state = 1, .softplus = false, .dt_bias = false}, runs);
  scan.dt = {0.25, 0.5, 1};
  const std::vector<double> dout = {1, 1, 1};
  const auto unclamped = krait::reference::ssd_scan_backward(scan, runs, dout, {});
  scan.dt_min = 0.25;
  scan.dt_max = 1;
  const auto clamped = krait::reference::ssd_scan_backward(scan, runs, dout, {});
  EXPECT_EQ(clamped.dt, unclamped.dt);
}

TEST(SsdScanBackwardReference, PaddingAndUnusedStatesGetZero) {
  SsdScan scan = make_scan({.gate = true, .initial_states = true}, packed_runs());
  const std::vector<double> dout(scan.x.size(), 1.0);
  const std::vector<double> dfinal(scan.initial_states.size(), 1.0);
  const auto d = krait::reference::ssd_scan_backward(scan, packed_runs(), dout, dfinal);
  const auto zeros = [](const std::vector<double>& values, std::size_t size, std::size_t begin) {
    const auto first = values.begin() + static_cast<std::ptrdiff_t>(size * begin);
    return std::all_of(first, first + static_cast<std::ptrdiff_t>(size), [](double v) { return v == 0; });
  };
  for (const std::size_t token : {4, 8, 9, 10}) {
    EXPECT_TRUE(zeros(d.x, 8, token) && zeros(d.z, 8, token) && zeros(d.dt, 4, token));
    EXPECT_TRUE(zeros(d.B, 6, token) && zeros(d.C, 6, token));
  }
  EXPECT_TRUE(zeros(d.initial_states, 24, 2)) << "a state of no run";
  EXPECT_EQ(std::vector<double>(d.initial_states.begin(), d.initial_states.begin() + 24), std::vector<double>(24, 1.0))
      << "an empty run hands its gradient on";
}

}  // namespace
