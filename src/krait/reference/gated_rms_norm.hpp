// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <krait/reference/pointwise.hpp>

namespace krait::reference {

/// Gated root-mean-square norm in double precision, token by token. x is row-major (tokens, features); z, weight and
/// bias (features) may be empty: no gate, factors 1, terms 0.
struct GatedRmsNorm {
  std::int64_t features = 1;
  std::int64_t group_size = 1;
  bool norm_before_gate = false;
  bool normalize = true;
  double epsilon = 1e-5;
  std::span<const double> x;
  std::span<const double> z;
  std::span<const double> weight;
  std::span<const double> bias;

  [[nodiscard]] std::vector<double> operator()() const {
    const auto gate = [&](std::size_t i) { return z.empty() ? 1.0 : silu(z[i]); };
    std::vector<double> out(x.size());
    const auto group = static_cast<std::size_t>(group_size);
    for (std::size_t begin = 0; begin < x.size(); begin += group) {
      std::vector<double> v(group);
      double squares = 0;
      for (std::size_t i = 0; i < group; ++i) {
        v[i] = norm_before_gate ? x[begin + i] : x[begin + i] * gate(begin + i);
        squares += v[i] * v[i];
      }
      const double scale = normalize ? 1 / std::sqrt(squares / static_cast<double>(group_size) + epsilon) : 1.0;
      for (std::size_t i = 0; i < group; ++i) {
        const std::size_t feature = (begin + i) % static_cast<std::size_t>(features);
        double value = v[i] * scale * (weight.empty() ? 1.0 : weight[feature]) + (bias.empty() ? 0.0 : bias[feature]);
        if (norm_before_gate) value *= gate(begin + i);
        out[begin + i] = value;
      }
    }
    return out;
  }
};

}  // namespace krait::reference
