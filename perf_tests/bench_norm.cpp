// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

struct Norm {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const std::int64_t features = s.H * s.P;
    GatedRmsNormArguments<T> arguments;
    const auto x = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, length, features);
    const auto z = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-4, 4, 1, length, features);
    const auto out = data<Kokkos::View<T***, Kokkos::LayoutRight>>(0, 1, 1, length, features);
    const auto weight = data<Kokkos::View<accumulator_t<T>*>>(0, 2, features);
    arguments.x = x;
    arguments.z = z;
    arguments.out = out;
    arguments.weight = weight;
    arguments.group_size = features / s.G;
    const double elements = static_cast<double>(length * features);
    // The gate, the square and its sum, two factors.
    perf::run(state, {double(length), 3 * sizeof(T) * elements, 5 * elements, std::is_same_v<T, double>},
              [&](const Exec& exec) { gated_rms_norm<T>(exec, arguments); });
  }
};

struct NormBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Activations = Kokkos::View<T***, Kokkos::LayoutRight>;
    const std::int64_t features = s.H * s.P;
    GatedRmsNormBackwardArguments<T> arguments;
    const auto x = data<Activations>(-1, 1, 1, length, features);
    const auto z = data<Activations>(-4, 4, 1, length, features);
    const auto dout = data<Activations>(-1, 1, 1, length, features);
    const auto dx = data<Activations>(0, 1, 1, length, features);
    const auto dz = data<Activations>(0, 1, 1, length, features);
    const auto weight = data<Kokkos::View<accumulator_t<T>*>>(0, 2, features);
    const auto dweight = data<Kokkos::View<accumulator_t<T>*>>(0, 1, features);
    const Kokkos::View<std::byte*> workspace("krait::perf::workspace",
                                             gated_rms_norm_backward_workspace_bytes<T, Exec>(1, length, features));
    arguments.x = x;
    arguments.z = z;
    arguments.weight = weight;
    arguments.group_size = features / s.G;
    arguments.dout = dout;
    arguments.dx = dx;
    arguments.dz = dz;
    arguments.dweight = dweight;
    arguments.workspace = workspace;
    const double elements = static_cast<double>(length * features);
    // The gate and the square with their sums, the mean of the products, and the gradients of four factors.
    perf::run(state, {double(length), 5 * sizeof(T) * elements, 18 * elements, std::is_same_v<T, double>},
              [&](const Exec& exec) { gated_rms_norm_backward<T>(exec, arguments); });
  }
};

}  // namespace

void register_norm() {
  add_all<Norm>("gated_rms_norm/forward");
  add_all<NormBackward>("gated_rms_norm/backward");
}

}  // namespace krait::perf
