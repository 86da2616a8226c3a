// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>

#include <utility>

#include "harness.hpp"

namespace krait::perf {
namespace {

/// Inputs and outputs of the projection into a layer: d_model = H P / 2 to z, x, B, C and dt.
std::pair<std::int64_t, std::int64_t> widths(const LayerShape& s) {
  return {s.H * s.P / 2, 2 * s.H * s.P + 2 * s.G * s.N + s.H};
}

struct Projection {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const auto [inputs, outputs] = widths(s);
    ProjectionArguments<T> arguments;
    const auto in = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, length, inputs);
    const auto out = data<Kokkos::View<T***, Kokkos::LayoutRight>>(0, 1, 1, length, outputs);
    const auto weight = data<Kokkos::View<T**, Kokkos::LayoutRight>>(-1, 1, outputs, inputs);
    arguments.in = in;
    arguments.out = out;
    arguments.weight = weight;
    const auto elements = static_cast<double>(length * (inputs + outputs) + inputs * outputs);
    const double products = static_cast<double>(length) * static_cast<double>(inputs * outputs);
    perf::run(state, {double(length), sizeof(T) * elements, 2 * products, std::is_same_v<T, double>},
              [&](const Exec& exec) { projection<T>(exec, arguments); });
  }
};

/// Its backward: as many operations again for the gradient of the input, and for that of the weight.
struct ProjectionBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using A = accumulator_t<T>;
    const auto [inputs, outputs] = widths(s);
    const auto in = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, length, inputs);
    const auto dout = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, length, outputs);
    const auto din = data<Kokkos::View<T***, Kokkos::LayoutRight>>(0, 1, 1, length, inputs);
    const auto weight = data<Kokkos::View<T**, Kokkos::LayoutRight>>(-1, 1, outputs, inputs);
    const auto dweight = data<Kokkos::View<A**, Kokkos::LayoutRight>>(0, 1, outputs, inputs);
    const auto dbias = data<Kokkos::View<A*, Kokkos::LayoutRight>>(0, 1, outputs);
    const Kokkos::View<std::byte*> workspace("krait::perf::workspace",
                                             projection_backward_workspace_bytes<T, Exec>(1, length, inputs, outputs));
    ProjectionBackwardArguments<T> arguments;
    arguments.in = in;
    arguments.weight = weight;
    arguments.dout = dout;
    arguments.din = din;
    arguments.dweight = dweight;
    arguments.dbias = dbias;
    arguments.workspace = workspace;
    const auto elements = static_cast<double>(length * (2 * inputs + outputs) + inputs * outputs);
    const auto parameters = static_cast<double>(inputs * outputs);
    const double bytes = sizeof(T) * elements + 2 * sizeof(A) * parameters;
    perf::run(state, {double(length), bytes, 4 * double(length) * parameters, std::is_same_v<T, double>},
              [&](const Exec& exec) { projection_backward<T>(exec, arguments); });
  }
};

}  // namespace

void register_projection() {
  add_all<Projection>("projection/forward");
  add_all<ProjectionBackward>("projection/backward");
}

}  // namespace krait::perf
