// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <krait/reference/gated_rms_norm.hpp>
#include <krait/reference/pointwise.hpp>

namespace krait::reference {

/// Gradients of GatedRmsNorm, each with the extents of what it belongs to; that of an absent tensor is empty.
struct GatedRmsNormGradients {
  std::vector<double> x;
  std::vector<double> z;
  std::vector<double> weight;
  std::vector<double> bias;
};

/// \param dout  (tokens, features)
inline GatedRmsNormGradients gated_rms_norm_backward(const GatedRmsNorm& forward, std::span<const double> dout) {
  const auto group = static_cast<std::size_t>(forward.group_size);
  const auto size = static_cast<double>(forward.group_size);
  const bool gated = !forward.z.empty();
  const bool gate_after = gated && forward.norm_before_gate;
  const bool gate_first = gated && !forward.norm_before_gate;
  const auto z = [&](std::size_t i) { return forward.z[i]; };
  GatedRmsNormGradients d;
  d.x.assign(forward.x.size(), 0.0);
  d.z.assign(forward.z.size(), 0.0);
  d.weight.assign(forward.weight.size(), 0.0);
  d.bias.assign(forward.bias.size(), 0.0);
  for (std::size_t begin = 0; begin < forward.x.size(); begin += group) {
    // v is what the norm sees, n = v * scale the normalised values, a = n * weight + bias what leaves the norm.
    std::vector<double> v(group), dn(group);
    double squares = 0;
    for (std::size_t i = 0; i < group; ++i) {
      v[i] = forward.x[begin + i] * (gate_first ? silu(z(begin + i)) : 1.0);
      squares += v[i] * v[i];
    }
    const double scale = forward.normalize ? 1 / std::sqrt(squares / size + forward.epsilon) : 1.0;
    double dscale = 0;
    for (std::size_t i = 0; i < group; ++i) {
      const std::size_t feature = (begin + i) % static_cast<std::size_t>(forward.features);
      const double weight = forward.weight.empty() ? 1.0 : forward.weight[feature];
      const double bias = forward.bias.empty() ? 0.0 : forward.bias[feature];
      const double n = v[i] * scale;
      double da = dout[begin + i];
      if (gate_after) {
        d.z[begin + i] = da * (n * weight + bias) * silu_slope(z(begin + i));
        da *= silu(z(begin + i));
      }
      if (!forward.weight.empty()) d.weight[feature] += da * n;
      if (!forward.bias.empty()) d.bias[feature] += da;
      dn[i] = da * weight;
      dscale += dn[i] * v[i];
    }
    // scale = (squares / size + epsilon)^(-1/2), hence d scale / d v_i = -scale^3 v_i / size.
    const double through_scale = forward.normalize ? -dscale * scale * scale * scale / size : 0.0;
    for (std::size_t i = 0; i < group; ++i) {
      const double dv = dn[i] * scale + through_scale * v[i];
      d.x[begin + i] = dv * (gate_first ? silu(z(begin + i)) : 1.0);
      if (gate_first) d.z[begin + i] = dv * forward.x[begin + i] * silu_slope(z(begin + i));
    }
  }
  return d;
}

}  // namespace krait::reference
