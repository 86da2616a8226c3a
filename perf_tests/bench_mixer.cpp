// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cmath>
#include <krait/mixer/mamba_mixer.hpp>
#include <string>

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
      : config{.d_model = s.H * s.P / 2, .head_dim = s.P, .heads = s.H, .groups = s.G, .d_state = s.N},
        mixer(Exec(), config),
        layout(SequenceLayout::contiguous(Place{}, length)),
        gradients(Exec(), config) {
    mixer.initialize(1);
  }

  /// Memory of a forward, or of a training step.
  [[nodiscard]] double bytes(bool training) const {
    const auto tensor = static_cast<double>(layout.length() * config.d_model) * sizeof(T);
    return training ? 4 * tensor + static_cast<double>(mixer.saved_bytes(layout, 1)) +
                          static_cast<double>(mixer.backward_workspace_bytes(layout, 1))
                    : 2 * tensor + static_cast<double>(mixer.workspace_bytes(layout, 1));
  }

  void allocate(bool training) {
    const auto tensor = [&](double low) { return data<Activations>(low, 1, 1, layout.length(), config.d_model); };
    hidden = tensor(-1);
    out = tensor(0);
    if (training) {
      dout = tensor(-1);
      dhidden = tensor(0);
    }
  }

  /// What no way to compute a layer avoids: in the forward two operations per element of in_proj and out_proj and
  /// token, and four per element of the state and token; in the backward twice the first and five halves of the second.
  /// Hidden states and weights move once, however many intermediates there are: z, x, B, C, dt and y are taken to stay
  /// in caches.
  [[nodiscard]] Cost cost(double projections, double scans, double tensors) const {
    const auto tokens = static_cast<double>(layout.length());
    const auto model = static_cast<double>(config.d_model);
    const auto inner = static_cast<double>(config.d_inner());
    const double weights = model * (static_cast<double>(config.projection_width()) + inner);
    return {.tokens = tokens,
            .bytes = sizeof(T) * (tensors * tokens * model + weights),
            .operations = tokens * (projections * weights + scans * inner * static_cast<double>(config.d_state)),
            .double_precision = std::is_same_v<T, double>,
            .in_sequence = true};
  }

  void forward(const Exec& exec) { mixer.forward(exec, hidden, layout, out); }
  void training_forward(const Exec& exec) { mixer.forward(exec, hidden, layout, out, kept); }
  void backward(const Exec& exec) { mixer.backward(exec, hidden, layout, kept, dout, dhidden, gradients); }
};

/// Rows that need more are left out, with a message.
constexpr double most_bytes = 20.0 * (1 << 30);

template <class T>
bool fits(benchmark::State& state, Layer<T>& layer, bool training) {
  const double bytes = layer.bytes(training);
  if (bytes > most_bytes) {
    state.SkipWithMessage("needs " + std::to_string(std::lround(bytes / (1 << 30))) + " GiB");
    return false;
  }
  layer.allocate(training);
  return true;
}

struct Mixer {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    Layer<T> layer(s, length);
    if (!fits(state, layer, false)) return;
    perf::run(state, layer.cost(2, 4, 2), [&](const Exec& exec) { layer.forward(exec); });
  }
};

struct MixerBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    Layer<T> layer(s, length);
    if (!fits(state, layer, true)) return;
    layer.training_forward(Exec());
    perf::run_backward(
        state, layer.cost(4, 10, 3), [&](const Exec& exec) { layer.backward(exec); },
        [&](const Exec& exec) { layer.training_forward(exec); });
  }
};

}  // namespace

void register_mixer() {
  const auto add_both = [](const LayerShape& shape, std::int64_t length) {
    add_scalars<Mixer>("mamba_mixer/forward", shape, length);
    add_scalars<MixerBackward>("mamba_mixer/backward", shape, length);
  };
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t length : lengths) add_both(shape, length);
  }
  // Of one layer, whether a token takes the same time in rows of any length.
  for (const std::int64_t length : {4096, 65536, 262144}) add_both(mamba2_130m, length);
}

}  // namespace krait::perf
