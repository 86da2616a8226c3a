// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cmath>
#include <string>

#include "mixer_layer.hpp"

namespace krait::perf {
namespace {

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
    Layer<T> layer(s, SequenceLayout::contiguous(Place{}, length));
    if (!fits(state, layer, false)) return;
    perf::run(state, layer.cost(2, 4, 2), [&](const Exec& exec) { layer.forward(exec); });
  }
};

struct MixerBackward {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    Layer<T> layer(s, SequenceLayout::contiguous(Place{}, length));
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
