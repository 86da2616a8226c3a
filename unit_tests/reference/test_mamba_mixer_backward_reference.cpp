// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <krait/core/runs.hpp>
#include <krait/reference/mamba_mixer_backward.hpp>
#include <vector>

#include <support/finite_differences.hpp>

/// Every gradient of the reference mixer against finite differences of the reference mixer.

namespace {

using krait::SequenceRuns;
using krait::reference::MambaMixer;
using krait::test::all_close;
using krait::test::by_differences;
using krait::test::finite_differences;
using krait::test::normal_numbers;
using krait::test::weighted_sum;

struct Case {
  std::int64_t groups = 2;
  std::int64_t d_conv = 4;
  bool silu = true;
  bool rmsnorm = true;
  bool norm_before_gate = false;
  bool biases = true;
  bool D_per_channel = false;
  bool clamp = false;
};

MambaMixer make_mixer(const Case& c) {
  MambaMixer mixer{.d_model = 5,
                   .heads = 4,
                   .head_dim = 2,
                   .groups = c.groups,
                   .d_state = 3,
                   .d_conv = c.d_conv,
                   .silu = c.silu,
                   .rmsnorm = c.rmsnorm,
                   .norm_before_gate = c.norm_before_gate};
  if (c.clamp) {
    mixer.dt_min = 0.5;
    mixer.dt_max = 1.1;
  }
  const auto root = [](std::int64_t fan_in) { return 1 / std::sqrt(static_cast<double>(fan_in)); };
  mixer.in_proj_weight = normal_numbers(1, mixer.width() * mixer.d_model, 0, root(mixer.d_model));
  mixer.conv_weight = normal_numbers(2, mixer.channels() * mixer.d_conv, 0, root(mixer.d_conv));
  mixer.dt_bias = normal_numbers(3, mixer.heads);
  mixer.A_log = normal_numbers(4, mixer.heads, 0, 0.5);
  (c.D_per_channel ? mixer.D_per_channel : mixer.D) = normal_numbers(5, c.D_per_channel ? mixer.inner() : mixer.heads);
  if (c.rmsnorm) mixer.norm_weight = normal_numbers(6, mixer.inner());
  mixer.out_proj_weight = normal_numbers(7, mixer.d_model * mixer.inner(), 0, root(mixer.inner()));
  if (c.biases) {
    mixer.in_proj_bias = normal_numbers(8, mixer.width());
    mixer.conv_bias = normal_numbers(9, mixer.channels());
    mixer.out_proj_bias = normal_numbers(10, mixer.d_model);
  }
  return mixer;
}

/// Where a step sits on an edge of the clamp the loss has a kink, and differences mean nothing.
bool off_the_edges(const MambaMixer& mixer, const std::vector<double>& hidden, const SequenceRuns& runs) {
  const auto scan = mixer.activations(hidden, runs).scan;
  for (std::size_t i = 0; i < scan.dt.size(); ++i) {
    const double step = krait::reference::softplus(scan.dt[i] + scan.dt_bias[i % scan.dt_bias.size()]);
    if (std::abs(step - mixer.dt_min) < 2e-3 || std::abs(step - mixer.dt_max) < 2e-3) return false;
  }
  return true;
}

void expect_gradients(const Case& c, const SequenceRuns& runs) {
  MambaMixer mixer = make_mixer(c);
  std::vector<double> hidden = normal_numbers(11, runs.rows() * runs.length() * mixer.d_model);
  ASSERT_TRUE(off_the_edges(mixer, hidden, runs));
  const std::vector<double> dout = normal_numbers(12, static_cast<std::int64_t>(hidden.size()));
  const auto loss = [&] { return weighted_sum(dout, mixer(hidden, runs)); };
  const auto d = krait::reference::mamba_mixer_backward(mixer, hidden, runs, dout);
  const auto expect = [&](const char* name, const std::vector<double>& got, std::vector<double>& input) {
    EXPECT_TRUE(all_close(got, finite_differences(input, loss), by_differences())) << "d" << name;
  };
  expect("hidden", d.hidden, hidden);
  expect("in_proj_weight", d.in_proj_weight, mixer.in_proj_weight);
  expect("in_proj_bias", d.in_proj_bias, mixer.in_proj_bias);
  expect("conv_weight", d.conv_weight, mixer.conv_weight);
  expect("conv_bias", d.conv_bias, mixer.conv_bias);
  expect("dt_bias", d.dt_bias, mixer.dt_bias);
  expect("A_log", d.A_log, mixer.A_log);
  expect("D", d.D, mixer.D);
  expect("D_per_channel", d.D_per_channel, mixer.D_per_channel);
  expect("norm_weight", d.norm_weight, mixer.norm_weight);
  expect("out_proj_weight", d.out_proj_weight, mixer.out_proj_weight);
  expect("out_proj_bias", d.out_proj_bias, mixer.out_proj_bias);
}

/// Two rows of 7 tokens: two runs and padding behind them, then a run of one token and one of the rest.
SequenceRuns packed_runs() { return {2, 7, {{0, 0, 3, 0}, {0, 3, 6, 1}, {1, 0, 1, 2}, {1, 1, 7, 3}}, 4}; }

TEST(MambaMixerBackwardReference, Gradients) {
  for (const std::int64_t groups : {1, 2, 4}) expect_gradients({.groups = groups}, SequenceRuns::whole_rows(1, 9));
}

TEST(MambaMixerBackwardReference, PackedRows) { expect_gradients({}, packed_runs()); }

TEST(MambaMixerBackwardReference, Options) {
  expect_gradients({.norm_before_gate = true}, packed_runs());
  expect_gradients({.rmsnorm = false}, packed_runs());
  expect_gradients({.biases = false}, packed_runs());
  expect_gradients({.D_per_channel = true}, packed_runs());
  expect_gradients({.silu = false}, packed_runs());
  expect_gradients({.clamp = true}, packed_runs());
  expect_gradients({.d_conv = 1}, packed_runs());
}

/// The scan gives padding tokens zeros, which no gate brings to life.
TEST(MambaMixerBackwardReference, PaddingGetsZero) {
  const auto runs = packed_runs();
  const MambaMixer mixer = make_mixer({});
  const auto hidden = normal_numbers(11, runs.rows() * runs.length() * mixer.d_model);
  const auto dout = normal_numbers(12, static_cast<std::int64_t>(hidden.size()));
  const auto d = krait::reference::mamba_mixer_backward(mixer, hidden, runs, dout);
  const auto padding = d.hidden.begin() + 6 * mixer.d_model;
  EXPECT_TRUE(std::all_of(padding, padding + mixer.d_model, [](double v) { return v == 0; }));
}

}  // namespace
