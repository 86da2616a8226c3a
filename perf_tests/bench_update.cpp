// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The step of a decode loop: one token for each row of a batch. The states of one row fit the caches of most machines,
// and stay there from step to step; those of 64 rows do not.
#include <krait/ops/causal_conv1d_update.hpp>
#include <krait/ops/state_update.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

constexpr std::int64_t taps = 4;

struct StateUpdate {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t batch) {
    using V = accumulator_t<T>;
    using Activations = Kokkos::View<T****, Kokkos::LayoutRight>;
    StateUpdateArguments<T> arguments;
    const auto states = data<Kokkos::View<V****, Kokkos::LayoutRight>>(-1, 1, batch, s.H, s.P, s.N);
    const auto x = data<Activations>(-1, 1, batch, 1, s.H, s.P);
    const auto B = data<Activations>(-1, 1, batch, 1, s.G, s.N);
    const auto C = data<Activations>(-1, 1, batch, 1, s.G, s.N);
    const auto out = data<Activations>(0, 1, batch, 1, s.H, s.P);
    const auto dt = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, batch, 1, s.H);
    const auto A = data<Kokkos::View<V*>>(-16, -1, s.H);
    const auto D = data<Kokkos::View<V*>>(0, 1, s.H);
    const auto dt_bias = data<Kokkos::View<V*>>(-7, -2, s.H);
    arguments.states = states;
    arguments.x = x;
    arguments.B = B;
    arguments.C = C;
    arguments.out = out;
    arguments.dt = dt;
    arguments.A = A;
    arguments.D = D;
    arguments.dt_bias = dt_bias;
    const double elements = static_cast<double>(states.size());
    const double bytes = 2 * sizeof(V) * elements +
                         static_cast<double>(sizeof(T) * (x.size() + B.size() + C.size() + out.size() + dt.size()));
    // The decay, and two multiply-adds.
    perf::run(state, {double(batch), bytes, 5 * elements, std::is_same_v<T, double>},
              [&](const Exec& exec) { state_update<T>(exec, arguments); });
  }
};

struct ConvUpdate {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t batch) {
    using V = accumulator_t<T>;
    using Activations = Kokkos::View<T***, Kokkos::LayoutRight>;
    const std::int64_t channels = s.H * s.P + 2 * s.G * s.N;
    CausalConv1dUpdateArguments<T> arguments;
    const auto states = data<Activations>(-1, 1, batch, channels, taps - 1);
    const auto x = data<Activations>(-1, 1, batch, 1, channels);
    const auto out = data<Activations>(0, 1, batch, 1, channels);
    const auto weight = data<Kokkos::View<V**, Kokkos::LayoutRight>>(-1, 1, channels, taps);
    const auto bias = data<Kokkos::View<V*>>(-1, 1, channels);
    arguments.states = states;
    arguments.x = x;
    arguments.out = out;
    arguments.weight = weight;
    arguments.bias = bias;
    const double bytes = static_cast<double>(sizeof(T) * (2 * states.size() + x.size() + out.size()) +
                                             sizeof(V) * (weight.size() + bias.size()));
    perf::run(state, {double(batch), bytes, 2 * taps * static_cast<double>(x.size()), std::is_same_v<T, double>},
              [&](const Exec& exec) { causal_conv1d_update<T>(exec, arguments); });
  }
};

/// Registers "name/shape/scalar/B:rows/T:threads".
template <class Body, class T>
void add_update(const std::string& name, const LayerShape& shape, std::int64_t batch) {
  const std::string full = name + '/' + shape.name + '/' + scalar_name<T>() + "/B:" + std::to_string(batch) +
                           "/T:" + std::to_string(Exec().concurrency());
  benchmark::RegisterBenchmark(full, [=](benchmark::State& state) { Body::template run<T>(state, shape, batch); })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

template <class Body>
void add_updates(const std::string& name) {
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t batch : {1, 64}) {
      add_update<Body, float>(name, shape, batch);
      add_update<Body, double>(name, shape, batch);
      add_update<Body, bfloat16>(name, shape, batch);
    }
  }
}

}  // namespace

void register_update() {
  add_updates<ConvUpdate>("causal_conv1d_update/forward");
  add_updates<StateUpdate>("state_update/forward");
}

}  // namespace krait::perf
