// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

constexpr std::int64_t taps = 4;

std::int64_t channels_of(const LayerShape& s) { return s.H * s.P + 2 * s.G * s.N; }

struct Conv {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    const std::int64_t channels = channels_of(s);
    const auto runs = SequenceRuns::whole_rows(1, length);
    CausalConv1dArguments<T> arguments;
    const auto x = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, length, channels);
    const auto out = data<Kokkos::View<T***, Kokkos::LayoutRight>>(0, 1, 1, length, channels);
    const auto weight = data<Kokkos::View<accumulator_t<T>**, Kokkos::LayoutRight>>(-1, 1, channels, taps);
    const auto bias = data<Kokkos::View<accumulator_t<T>*>>(-1, 1, channels);
    arguments.x = x;
    arguments.out = out;
    arguments.weight = weight;
    arguments.bias = bias;
    const double elements = static_cast<double>(length * channels);
    perf::run(state, {double(length), 2 * sizeof(T) * elements, 2 * taps * elements, std::is_same_v<T, double>},
              [&](const Exec& exec) { causal_conv1d<T>(exec, arguments, runs); });
  }
};

struct ConvBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Activations = Kokkos::View<T***, Kokkos::LayoutRight>;
    const std::int64_t channels = channels_of(s);
    const auto runs = SequenceRuns::whole_rows(1, length);
    CausalConv1dBackwardArguments<T> arguments;
    const auto x = data<Activations>(-1, 1, 1, length, channels);
    const auto dout = data<Activations>(-1, 1, 1, length, channels);
    const auto dx = data<Activations>(0, 1, 1, length, channels);
    const auto weight = data<Kokkos::View<accumulator_t<T>**, Kokkos::LayoutRight>>(-1, 1, channels, taps);
    const auto dweight = data<Kokkos::View<accumulator_t<T>**, Kokkos::LayoutRight>>(0, 1, channels, taps);
    const auto bias = data<Kokkos::View<accumulator_t<T>*>>(-1, 1, channels);
    const auto dbias = data<Kokkos::View<accumulator_t<T>*>>(0, 1, channels);
    const Kokkos::View<std::byte*> workspace(
        "krait::perf::workspace", causal_conv1d_backward_workspace_bytes<T, Exec>(1, length, channels, taps));
    arguments.x = x;
    arguments.weight = weight;
    arguments.bias = bias;
    arguments.dout = dout;
    arguments.dx = dx;
    arguments.dweight = dweight;
    arguments.dbias = dbias;
    arguments.workspace = workspace;
    const double elements = static_cast<double>(length * channels);
    // The convolution once more, its transpose, and the products of the weights' gradient.
    perf::run(state, {double(length), 3 * sizeof(T) * elements, 6 * taps * elements, std::is_same_v<T, double>},
              [&](const Exec& exec) { causal_conv1d_backward<T>(exec, arguments, runs); });
  }
};

}  // namespace

void register_conv() {
  add_all<Conv>("causal_conv1d/forward");
  add_all<ConvBackward>("causal_conv1d/backward");
}

}  // namespace krait::perf
