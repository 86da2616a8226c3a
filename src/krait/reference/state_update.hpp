// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The decode step of Mamba-2, element by element in double precision.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <krait/reference/pointwise.hpp>
#include <limits>
#include <vector>

namespace krait::reference {

/// Row-major tensors with the extents named at krait::StateUpdateArguments; an empty vector is an absent argument.
struct StateUpdate {
  std::int64_t batch = 1;
  std::int64_t length = 1;
  std::int64_t heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t groups = 1;
  std::int64_t d_state = 1;
  bool dt_softplus = true;
  double dt_min = 0;
  double dt_max = std::numeric_limits<double>::infinity();
  std::int64_t heads_per_group = 0;  ///< 0: heads / groups
  std::int64_t first_head = 0;
  std::vector<double> x = {}, dt = {}, A = {}, B = {}, C = {}, D = {}, D_per_channel = {}, z = {}, dt_bias = {};
  std::vector<std::int64_t> state_map = {};
};

/// Updates the states (n, H, P, N) in place and returns out (b, L, H, P).
inline std::vector<double> state_update(const StateUpdate& in, std::vector<double>& states) {
  const std::int64_t L = in.length, H = in.heads, P = in.head_dim, G = in.groups, N = in.d_state;
  const std::int64_t heads_per_group = in.heads_per_group > 0 ? in.heads_per_group : H / G;
  const auto at = [](const std::vector<double>& values, std::int64_t i) { return values[static_cast<std::size_t>(i)]; };

  std::vector<double> out(static_cast<std::size_t>(in.batch * L * H * P), 0.0);
  for (std::int64_t row = 0; row < in.batch; ++row) {
    const std::int64_t state = in.state_map.empty() ? row : in.state_map[static_cast<std::size_t>(row)];
    if (state < 0) continue;
    for (std::int64_t token = row * L; token < (row + 1) * L; ++token) {
      for (std::int64_t h = 0; h < H; ++h) {
        const std::int64_t g = (h + in.first_head) / heads_per_group;
        double delta = at(in.dt, token * H + h) + (in.dt_bias.empty() ? 0 : at(in.dt_bias, h));
        if (in.dt_softplus) delta = softplus(delta);
        delta = std::min(std::max(delta, in.dt_min), in.dt_max);
        for (std::int64_t p = 0; p < P; ++p) {
          const std::int64_t channel = h * P + p;
          const double x = at(in.x, token * H * P + channel);
          double y = 0;
          for (std::int64_t n = 0; n < N; ++n) {
            double& s = states[static_cast<std::size_t>((state * H * P + channel) * N + n)];
            s = std::exp(delta * at(in.A, h)) * s + delta * x * at(in.B, (token * G + g) * N + n);
            y += s * at(in.C, (token * G + g) * N + n);
          }
          if (!in.D.empty()) y += at(in.D, h) * x;
          if (!in.D_per_channel.empty()) y += at(in.D_per_channel, channel) * x;
          if (!in.z.empty()) y *= silu(at(in.z, token * H * P + channel));
          out[static_cast<std::size_t>(token * H * P + channel)] = y;
        }
      }
    }
  }
  return out;
}

}  // namespace krait::reference
