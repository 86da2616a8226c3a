// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_mixer.hpp>

#include "harness.hpp"

namespace krait::perf {
namespace {

/// One layer on one rank, forwards and through a training step.
template <class T>
struct Layer {
  using Activations = Kokkos::View<T***, Kokkos::LayoutRight>;

  MambaConfig config;
  MambaMixer<T> mixer;
  SequenceLayout layout;
  Activations hidden, out, dout, dhidden;
  MambaActivations<T> kept;
  MambaGradients<T> gradients;

  Layer(const LayerShape& s, std::int64_t length)
      : config{.d_model = s.H * s.P / 2, .head_dim = s.P, .groups = s.G, .d_state = s.N},
        mixer(Exec(), config),
        layout(SequenceLayout::contiguous(Place{}, length)),
        hidden(data<Activations>(-1, 1, 1, length, config.d_model)),
        out(data<Activations>(0, 1, 1, length, config.d_model)),
        dout(data<Activations>(-1, 1, 1, length, config.d_model)),
        dhidden(data<Activations>(0, 1, 1, length, config.d_model)),
        gradients(Exec(), config) {
    mixer.initialize(1);
  }

  /// Products of the projections, and two multiply-adds per element of the state and token; in the backward twice the
  /// first and five halves of the second. Hidden states and parameters move, however many intermediates there are.
  [[nodiscard]] Cost cost(double projections, double scans, double tensors) const {
    const auto tokens = static_cast<double>(layout.length());
    const auto model = static_cast<double>(config.d_model);
    const auto inner = static_cast<double>(config.d_inner());
    const double weights = model * (static_cast<double>(config.projection_width()) + inner);
    return {tokens, sizeof(T) * (tensors * tokens * model + weights),
            tokens * (projections * weights + scans * inner * static_cast<double>(config.d_state)),
            std::is_same_v<T, double>};
  }

  void forward(const Exec& exec) { mixer.forward(exec, hidden, layout, out); }
  void training_forward(const Exec& exec) { mixer.forward(exec, hidden, layout, out, kept); }
  void backward(const Exec& exec) { mixer.backward(exec, hidden, layout, kept, dout, dhidden, gradients); }
};

struct Mixer {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    Layer<T> layer(s, length);
    perf::run(state, layer.cost(2, 4, 2), [&](const Exec& exec) { layer.forward(exec); });
  }
};

struct MixerBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    Layer<T> layer(s, length);
    layer.training_forward(Exec());
    perf::run_backward(
        state, layer.cost(4, 10, 3), [&](const Exec& exec) { layer.backward(exec); },
        [&](const Exec& exec) { layer.training_forward(exec); });
  }
};

}  // namespace

void register_mixer() {
  constexpr std::int64_t length = 512;  // the projections are what takes long
  for (const LayerShape& shape : {shapes[0], LayerShape{"mamba2_2p7b", 80, 64, 1, 128}}) {
    add("mamba_mixer/forward", shape, scalar_name<float>(), length,
        [=](benchmark::State& state) { Mixer::run<float>(state, shape, length); });
    add("mamba_mixer/backward", shape, scalar_name<float>(), length,
        [=](benchmark::State& state) { MixerBackward::run<float>(state, shape, length); });
  }
}

}  // namespace krait::perf
