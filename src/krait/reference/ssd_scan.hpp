// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The scan of Mamba-2, token by token in double precision: the definition, and the truth of the tests.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <krait/core/runs.hpp>
#include <krait/reference/pointwise.hpp>
#include <limits>
#include <vector>

namespace krait::reference {

/// Row-major tensors with the extents named at krait::SsdScanArguments; an empty vector is an absent argument.
struct SsdScan {
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
  std::vector<double> initial_states = {};
};

struct SsdScanResult {
  std::vector<double> out;           ///< y, gated when z is given; 0 at padding tokens
  std::vector<double> y;             ///< before the gate
  std::vector<double> final_states;  ///< one per state of the runs
};

inline SsdScanResult ssd_scan(const SsdScan& in, const SequenceRuns& runs) {
  const std::int64_t H = in.heads, P = in.head_dim, G = in.groups, N = in.d_state, L = runs.length();
  const std::int64_t heads_per_group = in.heads_per_group > 0 ? in.heads_per_group : H / G;
  const auto at = [](const std::vector<double>& values, std::int64_t i) { return values[static_cast<std::size_t>(i)]; };

  SsdScanResult result;
  result.out.assign(static_cast<std::size_t>(runs.rows() * L * H * P), 0.0);
  result.y = result.out;
  result.final_states.assign(static_cast<std::size_t>(runs.states() * H * P * N), 0.0);

  for (const Run& run : runs.host()) {
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t g = (h + in.first_head) / heads_per_group;
      for (std::int64_t p = 0; p < P; ++p) {
        // One row of the state: S[p, :].
        const std::int64_t state = ((run.state * H + h) * P + p) * N;
        std::vector<double> S(static_cast<std::size_t>(N), 0.0);
        if (run.has_state() && !in.initial_states.empty()) {
          std::copy_n(in.initial_states.begin() + state, N, S.begin());
        }
        for (std::int64_t t = run.begin; t < run.end; ++t) {
          const std::int64_t token = run.row * L + t;
          const std::int64_t element = (token * H + h) * P + p;
          double delta = at(in.dt, token * H + h) + (in.dt_bias.empty() ? 0 : at(in.dt_bias, h));
          if (in.dt_softplus) delta = softplus(delta);
          delta = std::min(std::max(delta, in.dt_min), in.dt_max);

          const double decay = std::exp(delta * at(in.A, h));
          const double x = at(in.x, element);
          double y = 0;
          for (std::int64_t n = 0; n < N; ++n) {
            double& s = S[static_cast<std::size_t>(n)];
            s = decay * s + delta * x * at(in.B, (token * G + g) * N + n);
            y += s * at(in.C, (token * G + g) * N + n);
          }
          if (!in.D.empty()) y += at(in.D, h) * x;
          if (!in.D_per_channel.empty()) y += at(in.D_per_channel, h * P + p) * x;
          result.y[static_cast<std::size_t>(element)] = y;
          result.out[static_cast<std::size_t>(element)] = in.z.empty() ? y : y * silu(at(in.z, element));
        }
        if (run.has_state()) std::copy_n(S.begin(), N, result.final_states.begin() + state);
      }
    }
  }
  return result;
}

}  // namespace krait::reference
