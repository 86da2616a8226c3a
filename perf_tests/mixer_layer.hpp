// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/mixer/mamba_mixer.hpp>

#include "harness.hpp"

namespace krait::perf {

/// One layer, forwards and through a training step, and a rank's part of the tensors.
template <class T>
struct Layer {
  using Activations = Kokkos::View<T***, Kokkos::LayoutRight>;

  MambaConfig config;
  MambaMixer<T> mixer;
  SequenceLayout layout;
  Activations hidden, out, dout, dhidden;
  MambaActivations<T> kept;
  MambaGradients<T> gradients;

  Layer(const LayerShape& s, const SequenceLayout& tokens, const Parallel& parallel = {})
      : config{.d_model = s.H * s.P / 2, .head_dim = s.P, .heads = s.H, .groups = s.G, .d_state = s.N},
        mixer(Exec(), config, parallel),
        layout(tokens),
        gradients(Exec(), config) {
    mixer.initialize(1);
  }

  /// Memory of a forward, or of a training step.
  [[nodiscard]] double bytes(bool training) const {
    const auto tensor = static_cast<double>(layout.local_length() * config.d_model) * sizeof(T);
    return training ? 4 * tensor + static_cast<double>(mixer.saved_bytes(layout, 1)) +
                          static_cast<double>(mixer.backward_workspace_bytes(layout, 1))
                    : 2 * tensor + static_cast<double>(mixer.workspace_bytes(layout, 1));
  }

  void allocate(bool training) {
    const auto tensor = [&](double low) { return data<Activations>(low, 1, 1, layout.local_length(), config.d_model); };
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

}  // namespace krait::perf
