// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/ssd_scan.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

struct Scan {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Heads = Kokkos::View<accumulator_t<T>*>;
    using Activations = Kokkos::View<T****, Kokkos::LayoutRight>;
    const auto runs = SequenceRuns::whole_rows(1, length);
    SsdScanArguments<T> arguments;
    const auto x = data<Activations>(-1, 1, 1, length, s.H, s.P);
    const auto B = data<Activations>(-0.1, 0.1, 1, length, s.G, s.N);
    const auto C = data<Activations>(-0.1, 0.1, 1, length, s.G, s.N);
    const auto out = data<Activations>(0, 1, 1, length, s.H, s.P);
    // Steps between about 1e-3 and 0.1, as in a freshly initialised layer.
    const auto dt = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-6.9, -2.25, 1, length, s.H);
    const auto A = data<Heads>(-16, -1, s.H);
    const auto D = data<Heads>(0, 1, s.H);
    arguments.x = x;
    arguments.B = B;
    arguments.C = C;
    arguments.out = out;
    arguments.dt = dt;
    arguments.A = A;
    arguments.D = D;
    const SsdScanPlan<T> plan(Exec(), {1, length, s.H, s.P, s.G, s.N});
    const auto elements = static_cast<double>(length * (2 * s.H * s.P + 2 * s.G * s.N + s.H));
    // Two multiply-adds per element of the state and token.
    const double operations = 4.0 * static_cast<double>(length) * static_cast<double>(s.H * s.P * s.N);
    perf::run(state, {double(length), sizeof(T) * elements, operations, std::is_same_v<T, double>},
              [&](const Exec& exec) { ssd_scan<T>(exec, plan, arguments, runs); });
  }
};

}  // namespace

void register_scan() { add_all<Scan>("ssd_scan/forward"); }

}  // namespace krait::perf
