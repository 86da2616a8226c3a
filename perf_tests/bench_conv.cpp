// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

struct Conv {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    constexpr std::int64_t taps = 4;
    const std::int64_t channels = s.H * s.P + 2 * s.G * s.N;
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

}  // namespace

void register_conv() { add_all<Conv>("causal_conv1d/forward"); }

}  // namespace krait::perf
