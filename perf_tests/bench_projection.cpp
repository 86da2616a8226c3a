// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

/// The projection into a layer: d_model = H P / 2 to z, x, B, C and dt.
struct Projection {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const std::int64_t inputs = s.H * s.P / 2;
    const std::int64_t outputs = 2 * s.H * s.P + 2 * s.G * s.N + s.H;
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

}  // namespace

void register_projection() { add_all<Projection>("projection/forward"); }

}  // namespace krait::perf
