// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <krait/reference/pointwise.hpp>
#include <vector>

namespace krait::reference {

/// The decode step of a depthwise causal convolution in double precision, one channel and row after the other.
/// Row-major: x and the result are (batch, length, channels), weight (channels, taps), bias (channels) or empty.
struct CausalConv1dUpdate {
  std::int64_t batch = 1;
  std::int64_t length = 1;
  std::int64_t channels = 1;
  std::int64_t taps = 1;
  bool silu = true;
  std::vector<double> x = {}, weight = {}, bias = {};
  std::vector<std::int64_t> state_map = {};

  /// Moves the states (n, channels, taps - 1) on in place.
  [[nodiscard]] std::vector<double> operator()(std::vector<double>& states) const {
    const auto history = static_cast<std::size_t>(taps - 1);
    std::vector<double> out(static_cast<std::size_t>(batch * length * channels), 0.0);
    for (std::int64_t row = 0; row < batch; ++row) {
      const std::int64_t state = state_map.empty() ? row : state_map[static_cast<std::size_t>(row)];
      if (state < 0) continue;
      for (std::int64_t c = 0; c < channels; ++c) {
        const auto channel = static_cast<std::size_t>(c);
        const auto kept = states.begin() + (state * channels + c) * (taps - 1);
        std::vector<double> inputs(kept, kept + (taps - 1));
        for (std::int64_t t = 0; t < length; ++t) {
          const auto element = static_cast<std::size_t>((row * length + t) * channels + c);
          inputs.push_back(x[element]);
          double sum = bias.empty() ? 0.0 : bias[channel];
          for (std::size_t w = 0; w <= history; ++w)
            sum += weight[channel * (history + 1) + w] * inputs[static_cast<std::size_t>(t) + w];
          out[element] = silu ? reference::silu(sum) : sum;
        }
        for (std::size_t j = 0; j < history; ++j)
          *(kept + static_cast<std::ptrdiff_t>(j)) = inputs[inputs.size() - history + j];
      }
    }
    return out;
  }
};

}  // namespace krait::reference
