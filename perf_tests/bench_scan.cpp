// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_summary.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

/// The tensors of a scan of one row, and of its backward.
template <class T>
struct ScanTensors {
  using V = accumulator_t<T>;
  using Heads = Kokkos::View<V*>;
  using Activations = Kokkos::View<T****, Kokkos::LayoutRight>;
  using Steps = Kokkos::View<T***, Kokkos::LayoutRight>;

  SsdScanShape shape;
  SequenceRuns runs;
  Activations x, B, C, out;
  Steps dt;
  Heads A, D;

  /// \param slowest  A of the slowest head; the fastest has 16 times as much
  ScanTensors(const LayerShape& s, std::int64_t length, double slowest = -1)
      : shape{1, length, s.H, s.P, s.G, s.N},
        runs(SequenceRuns::whole_rows(1, length)),
        x(data<Activations>(-1, 1, 1, length, s.H, s.P)),
        B(data<Activations>(-0.1, 0.1, 1, length, s.G, s.N)),
        C(data<Activations>(-0.1, 0.1, 1, length, s.G, s.N)),
        out(data<Activations>(0, 1, 1, length, s.H, s.P)),
        // Steps between about 1e-3 and 0.1, as in a freshly initialised layer.
        dt(data<Steps>(-6.9, -2.25, 1, length, s.H)),
        A(data<Heads>(16 * slowest, slowest, s.H)),
        D(data<Heads>(0, 1, s.H)) {}

  template <class Arguments>
  void set_inputs(Arguments& arguments) const {
    arguments.x = x;
    arguments.dt = dt;
    arguments.A = A;
    arguments.B = B;
    arguments.C = C;
    arguments.D = D;
  }

  [[nodiscard]] SsdScanArguments<T> forward() const {
    SsdScanArguments<T> arguments;
    set_inputs(arguments);
    arguments.out = out;
    return arguments;
  }

  /// What has to move when every tensor moves once: `wide` of H * P elements per token, `narrow` of G * N, `steps` of
  /// H.
  [[nodiscard]] Cost cost(double wide, double narrow, double steps, double products) const {
    const auto L = static_cast<double>(shape.length), H = static_cast<double>(shape.heads),
               P = static_cast<double>(shape.head_dim), G = static_cast<double>(shape.groups),
               N = static_cast<double>(shape.d_state);
    return {L, sizeof(T) * L * (wide * H * P + narrow * G * N + steps * H), products * L * H * P * N,
            std::is_same_v<T, double>};
  }
};

struct Scan {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const ScanTensors<T> tensors(s, length);
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
struct SummarizeInitialised {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    summarize(state, ScanTensors<T>(s, length));
  }
};

/// All heads remember everything.
struct SummarizeSlow {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    summarize(state, ScanTensors<T>(s, length, -1e-5));
  }
};

struct ScanBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Tensors = ScanTensors<T>;
    const Tensors tensors(s, length);
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
  add_all<Scan>("ssd_scan/forward");
  add_all<SummarizeInitialised>("ssd_scan/summarize");
  add_all<SummarizeSlow>("ssd_scan/summarize_slow");
  add_all<ScanBackward>("ssd_scan/backward");
  constexpr LayerShape large{"mamba2_2p7b", 80, 64, 1, 128};
  for (const std::int64_t length : lengths) {
    add("ssd_scan/backward", large, scalar_name<float>(), length,
        [=](benchmark::State& state) { ScanBackward::run<float>(state, large, length); });
  }
}

}  // namespace krait::perf
