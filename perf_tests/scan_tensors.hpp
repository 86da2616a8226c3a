// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/ops/ssd_scan.hpp>

#include "harness.hpp"

namespace krait::perf {

/// A of the slowest head; the fastest has 16 times as much.
inline constexpr double initialised_decay = -1;  ///< as in a freshly initialised layer
inline constexpr double slow_decay = -1e-5;      ///< all heads remember everything

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

  ScanTensors(const LayerShape& s, std::int64_t length, double slowest = initialised_decay)
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

}  // namespace krait::perf
