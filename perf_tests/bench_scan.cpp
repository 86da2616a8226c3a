// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_summary.hpp>

#include "scan_tensors.hpp"

namespace krait::perf {
namespace {

template <bool slow>
struct Scan {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const ScanTensors<T> tensors(s, length, slow ? slow_decay : initialised_decay);
    const SsdScanPlan<T> plan(Exec(), tensors.shape);
    // Two multiply-adds per element of the state and token.
    perf::run(state, tensors.cost(2, 2, 1, 4),
              [&](const Exec& exec) { ssd_scan<T>(exec, plan, tensors.forward(), tensors.runs); });
  }
};

/// The same row without its outputs.
template <class T>
void summarize(benchmark::State& state, const ScanTensors<T>& tensors) {
  using V = accumulator_t<T>;
  const SsdScanShape& s = tensors.shape;
  const SsdScanPlan<T> plan(Exec(), s);
  const auto own = data<Kokkos::View<V****, Kokkos::LayoutRight>>(0, 1, 1, s.heads, s.head_dim, s.d_state);
  const auto log_alphas = data<Kokkos::View<V**, Kokkos::LayoutRight>>(0, 1, 1, s.heads);
  SsdScanSummaryArguments<T> arguments;
  arguments.x = tensors.x;
  arguments.dt = tensors.dt;
  arguments.A = tensors.A;
  arguments.B = tensors.B;
  arguments.own_states = own;
  arguments.log_alphas = log_alphas;
  // What it takes to read everything, one multiply-add per element of the state and token.
  perf::run(state, tensors.cost(1, 1, 1, 2),
            [&](const Exec& exec) { ssd_scan_summarize<T>(exec, plan, arguments, tensors.runs); });
}

/// With the decays of an initialised layer most heads remember a tail of the row only.
template <bool slow>
struct Summarize {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    summarize(state, ScanTensors<T>(s, length, slow ? slow_decay : initialised_decay));
  }
};

template <bool slow>
struct ScanBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Tensors = ScanTensors<T>;
    const Tensors tensors(s, length, slow ? slow_decay : initialised_decay);
    SsdScanBackwardArguments<T> arguments;
    tensors.set_inputs(arguments);
    const auto dout = data<typename Tensors::Activations>(-1, 1, 1, length, s.H, s.P);
    const auto dx = data<typename Tensors::Activations>(0, 1, 1, length, s.H, s.P);
    const auto dB = data<typename Tensors::Activations>(0, 1, 1, length, s.G, s.N);
    const auto dC = data<typename Tensors::Activations>(0, 1, 1, length, s.G, s.N);
    const auto ddt = data<typename Tensors::Steps>(0, 1, 1, length, s.H);
    const auto dA = data<typename Tensors::Heads>(0, 1, s.H);
    const auto dD = data<typename Tensors::Heads>(0, 1, s.H);
    arguments.dout = dout;
    arguments.dx = dx;
    arguments.dB = dB;
    arguments.dC = dC;
    arguments.ddt = ddt;
    arguments.dA = dA;
    arguments.dD = dD;
    const SsdScanPlan<T> forward_plan(Exec(), tensors.shape);
    const SsdScanBackwardPlan<T> plan(Exec(), tensors.shape);
    // Five multiply-adds per element of the state and token: the state, its gradient, and three products with them.
    perf::run_backward(
        state, tensors.cost(3, 4, 2, 10),
        [&](const Exec& exec) { ssd_scan_backward<T>(exec, plan, arguments, tensors.runs); },
        [&](const Exec& exec) { ssd_scan<T>(exec, forward_plan, tensors.forward(), tensors.runs); });
  }
};

}  // namespace

void register_scan() {
  add_all<Scan<false>>("ssd_scan/forward");
  add_all<Scan<true>>("ssd_scan/forward_slow");
  add_all<Summarize<false>>("ssd_scan/summarize");
  add_all<Summarize<true>>("ssd_scan/summarize_slow");
  add_all<ScanBackward<false>>("ssd_scan/backward");
  add_all<ScanBackward<true>>("ssd_scan/backward_slow");
}

}  // namespace krait::perf
