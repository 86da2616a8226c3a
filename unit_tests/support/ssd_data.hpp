// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Inputs for the scan, on the device and, with the values as stored there, for the reference.

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/reference/ssd_scan.hpp>
#include <optional>
#include <vector>

#include <support/allclose.hpp>
#include <support/random_view.hpp>
#include <support/ssd_tolerance.hpp>
#include <support/view_values.hpp>

namespace krait::test {

/// How fast the states decay. With plain normal numbers they would within two tokens, and nothing that crosses chunks
/// would ever be seen.
enum class Decay {
  model,  ///< as in a freshly initialised Mamba-2: steps log-uniform in [1e-3, 0.1], A uniform in [-16, -1]
  slow,   ///< about e^-1e-4 per token: states live for thousands of tokens
  mixed   ///< a few tokens that wipe the state out (e^-50) among slow ones
};

enum class Skip { none, per_head, per_channel };

/// What a test asks for.
struct ScanSetup {
  SsdScanShape shape;
  SsdScanOptions options;
  Decay decay = Decay::model;
  Skip skip = Skip::per_head;
  bool gate = false;
  bool store_y = false;
  bool dt_bias = true;
  bool wide_dt = false;  ///< dt in accumulator_t<T> instead of T
  bool initial_states = false;
  std::uint64_t seed = 1;
};

inline double inverse_softplus(double v) { return v + std::log(-std::expm1(-v)); }

namespace impl {

inline double log_uniform(double low, double high, std::uint64_t seed, std::uint64_t i) {
  return low * std::pow(high / low, uniform(seed, 1, i));
}

}  // namespace impl

/// The tensors of a call, row-major, and the reference's copy of them.
template <Scalar T>
struct ScanData {
  using V = accumulator_t<T>;
  template <class DataType>
  using View = Kokkos::View<DataType, Kokkos::LayoutRight>;

  ScanSetup setup;
  std::int64_t states;
  View<T****> x, B, C, z, out, y;
  View<T***> dt;
  View<V***> wide_dt;
  View<V*> A, D, dt_bias;
  View<V**> D_per_channel;
  View<V****> initial_states, final_states;
  reference::SsdScan truth;

  /// Data for `setup`, with `states_` initial and final states. The outputs are poisoned.
  ScanData(const ScanSetup& setup_, std::int64_t states_) : setup(setup_), states(states_) {
    const SsdScanShape& s = setup.shape;
    const auto b = s.batch, L = s.length, H = s.heads, P = s.head_dim, G = s.groups, N = s.d_state;
    x = random_view<View<T****>>(setup.seed, b, L, H, P);
    B = View<T****>("B", b, L, G, N);
    C = View<T****>("C", b, L, G, N);
    fill_normal(B, setup.seed + 1, 0, 1 / std::sqrt(static_cast<double>(N)));
    fill_normal(C, setup.seed + 2, 0, 1 / std::sqrt(static_cast<double>(N)));
    if (setup.gate) z = random_view<View<T****>>(setup.seed + 3, b, L, H, P);
    if (setup.skip == Skip::per_head) D = random_view<View<V*>>(setup.seed + 4, H);
    if (setup.skip == Skip::per_channel) D_per_channel = random_view<View<V**>>(setup.seed + 4, H, P);
    if (setup.initial_states) initial_states = random_view<View<V****>>(setup.seed + 5, states, H, P, N);
    out = poisoned_view<View<T****>>(b, L, H, P);
    if (setup.store_y) y = poisoned_view<View<T****>>(b, L, H, P);
    final_states = poisoned_view<View<V****>>(states, H, P, N);
    make_steps();
    copy_to_truth();
  }

  /// The arguments, all tensors as they are; a test replaces those it wants otherwise.
  [[nodiscard]] SsdScanArguments<T> arguments() const {
    SsdScanArguments<T> a;
    a.x = x;
    if (setup.wide_dt) {
      a.dt = wide_dt;
    } else {
      a.dt = dt;
    }
    a.A = A;
    a.B = B;
    a.C = C;
    a.out = out;
    a.final_states = final_states;
    if (D.is_allocated()) a.D = D;
    if (D_per_channel.is_allocated()) a.D_per_channel = D_per_channel;
    if (z.is_allocated()) a.z = z;
    if (y.is_allocated()) a.y = y;
    if (dt_bias.is_allocated()) a.dt_bias = dt_bias;
    if (initial_states.is_allocated()) a.initial_states = initial_states;
    return a;
  }

  /// Copies what the views hold now to the reference's inputs.
  void copy_to_truth() {
    const auto copy = [](const auto& view) { return view.is_allocated() ? values_of(view) : std::vector<double>(); };
    const SsdScanShape& s = setup.shape;
    truth.heads = s.heads;
    truth.head_dim = s.head_dim;
    truth.groups = s.groups;
    truth.d_state = s.d_state;
    truth.dt_softplus = setup.options.dt_softplus;
    truth.dt_min = setup.options.dt_min;
    truth.dt_max = setup.options.dt_max;
    truth.heads_per_group = setup.options.heads_per_group;
    truth.first_head = setup.options.first_head;
    truth.x = copy(x);
    truth.dt = setup.wide_dt ? copy(wide_dt) : copy(dt);
    truth.A = copy(A);
    truth.B = copy(B);
    truth.C = copy(C);
    truth.D = copy(D);
    truth.D_per_channel = copy(D_per_channel);
    truth.z = copy(z);
    truth.dt_bias = copy(dt_bias);
    truth.initial_states = copy(initial_states);
  }

 private:
  /// A, dt_bias and dt, and with Decay::mixed the x of the fast tokens: their large steps would drown all others.
  void make_steps() {
    const SsdScanShape& s = setup.shape;
    const auto b = s.batch, L = s.length, H = s.heads, P = s.head_dim;
    const auto heads = static_cast<std::size_t>(H);
    std::vector<double> rates(heads), step(heads);
    for (std::size_t h = 0; h < heads; ++h) {
      const double u = uniform(setup.seed + 6, 0, h);
      switch (setup.decay) {
        case Decay::model:
          rates[h] = -1 - 15 * u;
          step[h] = impl::log_uniform(1e-3, 0.1, setup.seed + 7, h);
          break;
        case Decay::slow:
          rates[h] = -1e-3 * (0.5 + u);
          step[h] = 0.1;
          break;
        case Decay::mixed:
          rates[h] = -1;
          step[h] = 1e-2 * (0.5 + u);
          break;
      }
    }
    std::vector<double> raw(static_cast<std::size_t>(b * L * H));
    auto scaled = values_of(x);
    for (std::size_t i = 0; i < raw.size(); ++i) {
      const std::size_t h = i % heads;
      double wanted = step[h] * std::exp(0.5 * normal(setup.seed + 8, 0, i));
      if (setup.decay == Decay::mixed && uniform(setup.seed + 9, 0, i) < 0.06) {
        wanted = 50;
        for (std::int64_t p = 0; p < P; ++p)
          scaled[i * static_cast<std::size_t>(P) + static_cast<std::size_t>(p)] /= 5000;
      }
      raw[i] = setup.options.dt_softplus ? inverse_softplus(wanted) : wanted;
      if (setup.dt_bias) raw[i] -= setup.options.dt_softplus ? inverse_softplus(step[h]) : 0.25 * step[h];
    }
    assign(x, scaled);
    A = View<V*>("A", heads);
    assign(A, rates);
    if (setup.dt_bias) {
      dt_bias = View<V*>("dt_bias", heads);
      std::vector<double> bias(heads);
      for (std::size_t h = 0; h < heads; ++h)
        bias[h] = setup.options.dt_softplus ? inverse_softplus(step[h]) : 0.25 * step[h];
      assign(dt_bias, bias);
    }
    if (setup.wide_dt) {
      wide_dt = View<V***>("dt", b, L, H);
      assign(wide_dt, raw);
    } else {
      dt = View<T***>("dt", b, L, H);
      assign(dt, raw);
    }
  }
};

/// Runs the scan on the data as they are, with its own plan.
template <Scalar T>
void run_scan(const ScanData<T>& data, const SequenceRuns& runs, const krait::impl::SsdScanTiling& tiling = {}) {
  const Kokkos::DefaultExecutionSpace exec;
  const SsdScanPlan<T> plan(exec, data.setup.shape, data.setup.options, tiling);
  ssd_scan(exec, plan, data.arguments(), runs);
  exec.fence("krait::test: results are ready");
}

/// Runs the scan and compares everything that it wrote with the reference.
template <Scalar T>
void expect_scan_matches(const ScanSetup& setup, const SequenceRuns& runs,
                         const krait::impl::SsdScanTiling& tiling = {}) {
  const ScanData<T> data(setup, runs.states());
  run_scan(data, runs, tiling);
  const reference::SsdScanResult want = reference::ssd_scan(data.truth, runs);
  EXPECT_TRUE(all_close(data.out, want.out, tolerance<T>())) << "out";
  EXPECT_TRUE(all_close(data.final_states, want.final_states, accumulated_tolerance<T>())) << "final_states";
  if (setup.store_y) {
    EXPECT_TRUE(all_close(data.y, want.y, tolerance<T>())) << "y";
  }
}

/// The same with one run per row.
template <Scalar T>
void expect_scan_matches(const ScanSetup& setup, const krait::impl::SsdScanTiling& tiling = {}) {
  expect_scan_matches<T>(setup, SequenceRuns::whole_rows(setup.shape.batch, setup.shape.length), tiling);
}

}  // namespace krait::test
