// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <krait/core/runs.hpp>
#include <krait/reference/causal_conv1d.hpp>
#include <krait/reference/pointwise.hpp>

namespace krait::reference {

/// Gradients of CausalConv1d, each with the extents of what it belongs to; that of an absent bias is empty.
struct CausalConv1dGradients {
  std::vector<double> x;  ///< 0 at padding tokens
  std::vector<double> weight;
  std::vector<double> bias;
  std::vector<double> initial;  ///< one per state, also without initial states; 0 for states of no run
};

/// \param dout            (rows, length, channels)
/// \param dfinal_states   (states, channels, taps - 1), possibly empty
inline CausalConv1dGradients causal_conv1d_backward(const CausalConv1d& forward, const SequenceRuns& runs,
                                                    std::span<const double> dout,
                                                    std::span<const double> dfinal_states) {
  const std::int64_t channels = forward.channels;
  const std::int64_t taps = forward.taps;
  const std::int64_t history = taps - 1;
  CausalConv1dGradients d;
  d.x.assign(forward.x.size(), 0.0);
  d.weight.assign(forward.weight.size(), 0.0);
  d.bias.assign(forward.bias.size(), 0.0);
  d.initial.assign(static_cast<std::size_t>(runs.states() * channels * history), 0.0);
  for (const Run& run : runs.host()) {
    const std::int64_t length = run.end - run.begin;
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto token = [&](std::int64_t t) {
        return static_cast<std::size_t>((run.row * runs.length() + run.begin + t) * channels + c);
      };
      const auto state = [&](std::int64_t j) {
        return static_cast<std::size_t>((run.state * channels + c) * history + j);
      };
      const auto tap = [&](std::int64_t w) { return static_cast<std::size_t>(c * taps + w); };
      // The inputs of the run behind those before it, and their gradients.
      std::vector<double> inputs;
      for (std::int64_t j = 0; j < history; ++j)
        inputs.push_back(forward.initial.empty() || !run.has_state() ? 0.0 : forward.initial[state(j)]);
      for (std::int64_t t = 0; t < length; ++t) inputs.push_back(forward.x[token(t)]);
      std::vector<double> dinputs(inputs.size(), 0.0);
      // The final state is the end of the inputs, which reaches back into the initial one when the run is short.
      for (std::int64_t j = 0; j < history && run.has_state() && !dfinal_states.empty(); ++j)
        dinputs[static_cast<std::size_t>(length + j)] = dfinal_states[state(j)];

      for (std::int64_t t = 0; t < length; ++t) {
        double sum = forward.bias.empty() ? 0.0 : forward.bias[static_cast<std::size_t>(c)];
        for (std::int64_t w = 0; w < taps; ++w) sum += forward.weight[tap(w)] * inputs[static_cast<std::size_t>(t + w)];
        const double dsum = dout[token(t)] * (forward.silu ? silu_slope(sum) : 1.0);
        if (!forward.bias.empty()) d.bias[static_cast<std::size_t>(c)] += dsum;
        for (std::int64_t w = 0; w < taps; ++w) {
          d.weight[tap(w)] += dsum * inputs[static_cast<std::size_t>(t + w)];
          dinputs[static_cast<std::size_t>(t + w)] += dsum * forward.weight[tap(w)];
        }
      }
      for (std::int64_t j = 0; j < history && run.has_state(); ++j)
        d.initial[state(j)] = dinputs[static_cast<std::size_t>(j)];
      for (std::int64_t t = 0; t < length; ++t) d.x[token(t)] = dinputs[static_cast<std::size_t>(history + t)];
    }
  }
  return d;
}

}  // namespace krait::reference
