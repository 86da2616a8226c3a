// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <krait/core/runs.hpp>

namespace krait::reference {

/// Depthwise causal convolution in double precision, one channel and run after the other. Row-major: x and out are
/// (rows, length, channels), weight (channels, taps), bias (channels) or empty, the states (states, channels,
/// taps - 1), `initial` possibly empty.
struct CausalConv1d {
  std::int64_t channels = 1;
  std::int64_t taps = 1;
  bool silu = true;
  std::span<const double> x;
  std::span<const double> weight;
  std::span<const double> bias;
  std::span<const double> initial;

  struct Result {
    std::vector<double> out;
    std::vector<double> final_states;
  };

  [[nodiscard]] Result operator()(const SequenceRuns& runs) const {
    const std::int64_t history = taps - 1;
    Result result;
    result.out.assign(static_cast<std::size_t>(runs.rows() * runs.length() * channels), 0.0);
    result.final_states.assign(static_cast<std::size_t>(runs.states() * channels * history), 0.0);
    for (const Run& run : runs.host()) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const auto token = [&](std::int64_t t) {
          return static_cast<std::size_t>((run.row * runs.length() + run.begin + t) * channels + c);
        };
        const auto state = [&](std::int64_t j) {
          return static_cast<std::size_t>((run.state * channels + c) * history + j);
        };
        // The inputs of the run behind those before it.
        std::vector<double> inputs;
        for (std::int64_t j = 0; j < history; ++j)
          inputs.push_back(initial.empty() || !run.has_state() ? 0.0 : initial[state(j)]);
        for (std::int64_t t = 0; t < run.end - run.begin; ++t) inputs.push_back(x[token(t)]);
        for (std::int64_t t = 0; t < run.end - run.begin; ++t) {
          double sum = bias.empty() ? 0.0 : bias[static_cast<std::size_t>(c)];
          for (std::int64_t w = 0; w < taps; ++w)
            sum += weight[static_cast<std::size_t>(c * taps + w)] * inputs[static_cast<std::size_t>(t + w)];
          result.out[token(t)] = silu ? sum / (1 + std::exp(-sum)) : sum;
        }
        for (std::int64_t j = 0; j < history && run.has_state(); ++j)
          result.final_states[state(j)] = inputs[inputs.size() - static_cast<std::size_t>(history - j)];
      }
    }
    return result;
  }
};

}  // namespace krait::reference
