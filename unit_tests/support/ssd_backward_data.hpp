// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Inputs and outputs of the scan's backward, and comparison with the reference.

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/reference/ssd_scan_backward.hpp>
#include <string>
#include <vector>

#include <support/allclose.hpp>
#include <support/random_view.hpp>
#include <support/ssd_data.hpp>
#include <support/view_values.hpp>

namespace krait::test {

/// What a test asks for; `forward.store_y` follows `forward.gate`.
struct ScanBackwardSetup {
  ScanSetup forward;
  bool final_states = true;  ///< a gradient of the final states is given
  krait::impl::SsdScanBackwardTiling tiling = {};
};

/// The tensors of a call, row-major. Gradients of inputs are poisoned, those of parameters begin at `already_there`.
template <Scalar T>
struct ScanBackwardData {
  using V = accumulator_t<T>;
  template <class DataType>
  using View = Kokkos::View<DataType, Kokkos::LayoutRight>;
  static constexpr double already_there = 0.25;

  ScanBackwardSetup setup;
  ScanData<T> forward;
  View<T****> dout, dx, dB, dC, dz;
  View<T***> ddt;
  View<V****> dfinal_states, dinitial_states;
  View<V*> dA, dD, ddt_bias;
  View<V**> dD_per_channel;

  /// Data for `setup`; y is the one that the scan stores.
  ScanBackwardData(const ScanBackwardSetup& setup_, const SequenceRuns& runs)
      : setup(setup_), forward(with_y(setup_.forward), runs.states()) {
    const SsdScanShape& s = setup.forward.shape;
    const auto b = s.batch, L = s.length, H = s.heads, P = s.head_dim, G = s.groups, N = s.d_state, n = runs.states();
    const std::uint64_t seed = setup.forward.seed + 100;
    if (setup.forward.gate) {
      run_scan(forward, runs);
      dz = poisoned_view<View<T****>>(b, L, H, P);
    }
    dout = random_view<View<T****>>(seed, b, L, H, P);
    if (setup.final_states) dfinal_states = random_view<View<V****>>(seed + 1, n, H, P, N);
    dx = poisoned_view<View<T****>>(b, L, H, P);
    ddt = poisoned_view<View<T***>>(b, L, H);
    dB = poisoned_view<View<T****>>(b, L, G, N);
    dC = poisoned_view<View<T****>>(b, L, G, N);
    dinitial_states = poisoned_view<View<V****>>(n, H, P, N);
    dA = there<V*>(H);
    if (forward.dt_bias.is_allocated()) ddt_bias = there<V*>(H);
    if (forward.D.is_allocated()) dD = there<V*>(H);
    if (forward.D_per_channel.is_allocated()) dD_per_channel = there<V**>(H, P);
  }

  /// The arguments, all tensors as they are; a test replaces those it wants otherwise.
  [[nodiscard]] SsdScanBackwardArguments<T> arguments() const {
    const SsdScanArguments<T> in = forward.arguments();
    SsdScanBackwardArguments<T> a;
    a.x = in.x;
    a.dt = in.dt;
    a.A = in.A;
    a.B = in.B;
    a.C = in.C;
    a.D = in.D;
    a.D_per_channel = in.D_per_channel;
    a.z = in.z;
    a.dt_bias = in.dt_bias;
    a.initial_states = in.initial_states;
    if (dz.is_allocated()) {
      a.y = forward.y;
      a.dz = dz;
    }
    a.dout = dout;
    if (dfinal_states.is_allocated()) a.dfinal_states = dfinal_states;
    a.dx = dx;
    a.ddt = ddt;
    a.dB = dB;
    a.dC = dC;
    a.dA = dA;
    if (dD.is_allocated()) a.dD = dD;
    if (dD_per_channel.is_allocated()) a.dD_per_channel = dD_per_channel;
    if (ddt_bias.is_allocated()) a.ddt_bias = ddt_bias;
    a.dinitial_states = dinitial_states;
    return a;
  }

  /// Calls `body(name, view)` for every gradient.
  template <class Body>
  void for_each_gradient(const Body& body) const {
    const auto call = [&](const char* name, const auto& view) {
      if (view.is_allocated()) body(name, view);
    };
    call("dx", dx);
    call("ddt", ddt);
    call("dB", dB);
    call("dC", dC);
    call("dz", dz);
    call("dinitial_states", dinitial_states);
    call("dA", dA);
    call("dD", dD);
    call("dD_per_channel", dD_per_channel);
    call("ddt_bias", ddt_bias);
  }

 private:
  static ScanSetup with_y(ScanSetup setup) {
    setup.store_y = setup.gate;
    return setup;
  }

  template <class DataType, class... Extents>
  static View<DataType> there(Extents... extents) {
    const View<DataType> view("krait::test::there", static_cast<std::size_t>(extents)...);
    fill(view, already_there);
    return view;
  }
};

template <Scalar T>
void run_scan_backward(const ScanBackwardData<T>& data, const SequenceRuns& runs) {
  const Kokkos::DefaultExecutionSpace exec;
  const SsdScanBackwardPlan<T> plan(exec, data.setup.forward.shape, data.setup.forward.options, data.setup.tiling);
  ssd_scan_backward(exec, plan, data.arguments(), runs);
  exec.fence("krait::test: gradients are ready");
}

/// The reference's gradients by the names of for_each_gradient(), with what was there already in those of parameters.
template <Scalar T>
std::vector<double> expected_gradient(const reference::SsdScanGradients& want, const std::string& name) {
  if (name == "dx") return want.x;
  if (name == "ddt") return want.dt;
  if (name == "dB") return want.B;
  if (name == "dC") return want.C;
  if (name == "dz") return want.z;
  if (name == "dinitial_states") return want.initial_states;
  std::vector<double> sum = name == "dA"               ? want.A
                            : name == "dD"             ? want.D
                            : name == "dD_per_channel" ? want.D_per_channel
                                                       : want.dt_bias;
  for (double& value : sum) value += ScanBackwardData<T>::already_there;
  return sum;
}

/// The gradient of the gate is a product with y as stored; one that was rounded to 16 bits is not the reference's.
template <Scalar T>
void follow_stored_y(const ScanBackwardData<T>& data, reference::SsdScanGradients& want) {
  if (want.z.empty()) return;
  const auto y = values_of(data.forward.y), z = values_of(data.forward.z), dout = values_of(data.dout);
  for (std::size_t i = 0; i < want.z.size(); ++i) {
    if (want.z[i] != 0) want.z[i] = dout[i] * y[i] * reference::silu_slope(z[i]);
  }
}

/// Compares everything that a call wrote with the reference.
template <Scalar T>
void expect_gradients(const ScanBackwardData<T>& data, const SequenceRuns& runs) {
  const std::vector<double> dfinal =
      data.dfinal_states.is_allocated() ? values_of(data.dfinal_states) : std::vector<double>();
  auto want = reference::ssd_scan_backward(data.forward.truth, runs, values_of(data.dout), dfinal);
  if constexpr (sizeof(T) == 2) follow_stored_y(data, want);
  data.for_each_gradient([&](const char* name, const auto& view) {
    using Stored = typename std::decay_t<decltype(view)>::value_type;
    const Tolerance bounds = std::is_same_v<Stored, T> ? stored_tolerance<T>() : accumulated_tolerance<T>();
    EXPECT_TRUE(all_close(view, expected_gradient<T>(want, name), bounds)) << name;
  });
}

/// Runs the backward and compares it with the reference.
template <Scalar T>
void expect_backward_matches(const ScanBackwardSetup& setup, const SequenceRuns& runs) {
  const ScanBackwardData<T> data(setup, runs);
  run_scan_backward(data, runs);
  expect_gradients(data, runs);
}

/// The same with one run per row.
template <Scalar T>
void expect_backward_matches(const ScanBackwardSetup& setup) {
  const SsdScanShape& shape = setup.forward.shape;
  expect_backward_matches<T>(setup, SequenceRuns::whole_rows(shape.batch, shape.length));
}

/// Whether two calls wrote the same bits.
template <Scalar T>
void expect_same_gradients(const ScanBackwardData<T>& got, const ScanBackwardData<T>& want) {
  std::vector<std::vector<double>> wanted;
  want.for_each_gradient([&](const char*, const auto& view) { wanted.push_back(values_of(view)); });
  std::size_t next = 0;
  got.for_each_gradient(
      [&](const char* name, const auto& view) { EXPECT_TRUE(all_close(view, wanted[next++], exact())) << name; });
}

}  // namespace krait::test
