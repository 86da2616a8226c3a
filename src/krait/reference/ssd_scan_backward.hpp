// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <krait/core/runs.hpp>
#include <krait/reference/pointwise.hpp>
#include <krait/reference/ssd_scan.hpp>

namespace krait::reference {

/// Gradients of ssd_scan(), each with the extents of what it belongs to; that of an absent tensor is empty.
struct SsdScanGradients {
  std::vector<double> x, dt, A, B, C, D, D_per_channel, z, dt_bias;  ///< 0 at padding tokens
  std::vector<double> initial_states;  ///< one per state, also without initial states; 0 for states of no run
};

/// The adjoint of the recurrence, token by token from the last to the first. With dS the gradient of S_t, which begins
/// as the gradient of the final state:
///
///     dS += dy_t (outer) C_t,    dC_t = dy_t S_t,    dB_t = delta_t x_t dS,    dx_t = delta_t dS B_t + D dy_t
///     ddelta_t = <dS, x_t (outer) B_t> + A e^(delta_t A) <dS, S_(t-1)>,        dS <- e^(delta_t A) dS
///
/// \param dout           (rows, length, heads, head_dim), the gradient of SsdScanResult::out
/// \param dfinal_states  (states, heads, head_dim, d_state), possibly empty
inline SsdScanGradients ssd_scan_backward(const SsdScan& in, const SequenceRuns& runs, std::span<const double> dout,
                                          std::span<const double> dfinal_states) {
  const std::int64_t H = in.heads, P = in.head_dim, G = in.groups, N = in.d_state, L = runs.length();
  const std::int64_t heads_per_group = in.heads_per_group > 0 ? in.heads_per_group : H / G;
  const auto at = [](auto& values, std::int64_t i) -> auto& { return values[static_cast<std::size_t>(i)]; };

  SsdScanGradients d;
  d.x.assign(in.x.size(), 0.0);
  d.dt.assign(in.dt.size(), 0.0);
  d.A.assign(in.A.size(), 0.0);
  d.B.assign(in.B.size(), 0.0);
  d.C.assign(in.C.size(), 0.0);
  d.D.assign(in.D.size(), 0.0);
  d.D_per_channel.assign(in.D_per_channel.size(), 0.0);
  d.z.assign(in.z.size(), 0.0);
  d.dt_bias.assign(in.dt_bias.size(), 0.0);
  d.initial_states.assign(static_cast<std::size_t>(runs.states() * H * P * N), 0.0);

  for (const Run& run : runs.host()) {
    const std::int64_t length = run.end - run.begin;
    const auto size = static_cast<std::size_t>(length);
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t g = (h + in.first_head) / heads_per_group;
      const double A = at(in.A, h);
      const auto token = [&](std::int64_t t) { return run.row * L + run.begin + t; };

      // Of the steps before the softplus and before the clamp, and the steps themselves.
      std::vector<double> raw(size), unclamped(size), delta(size), ddelta(size, 0.0);
      for (std::int64_t t = 0; t < length; ++t) {
        at(raw, t) = at(in.dt, token(t) * H + h) + (in.dt_bias.empty() ? 0.0 : at(in.dt_bias, h));
        at(unclamped, t) = in.dt_softplus ? softplus(at(raw, t)) : at(raw, t);
        at(delta, t) = std::min(std::max(at(unclamped, t), in.dt_min), in.dt_max);
      }

      for (std::int64_t p = 0; p < P; ++p) {
        const std::int64_t state = ((run.state * H + h) * P + p) * N;
        double skip = 0;
        if (!in.D.empty()) skip = at(in.D, h);
        if (!in.D_per_channel.empty()) skip = at(in.D_per_channel, h * P + p);

        // S[t * N + n]: one row of the state before token t; the last one is the final state.
        std::vector<double> S(static_cast<std::size_t>((length + 1) * N), 0.0);
        if (run.has_state() && !in.initial_states.empty()) {
          std::copy_n(in.initial_states.begin() + state, N, S.begin());
        }
        for (std::int64_t t = 0; t < length; ++t) {
          const double x = at(in.x, (token(t) * H + h) * P + p);
          for (std::int64_t n = 0; n < N; ++n) {
            at(S, (t + 1) * N + n) =
                std::exp(at(delta, t) * A) * at(S, t * N + n) + at(delta, t) * x * at(in.B, (token(t) * G + g) * N + n);
          }
        }

        std::vector<double> dS(static_cast<std::size_t>(N), 0.0);
        if (run.has_state() && !dfinal_states.empty()) std::copy_n(dfinal_states.begin() + state, N, dS.begin());
        for (std::int64_t t = length - 1; t >= 0; --t) {
          const std::int64_t element = (token(t) * H + h) * P + p;
          const std::int64_t group = (token(t) * G + g) * N;
          const double x = at(in.x, element);
          const double step = at(delta, t);
          const double decay = std::exp(step * A);

          double dy = at(dout, element);
          if (!in.z.empty()) {
            double y = skip * x;
            for (std::int64_t n = 0; n < N; ++n) y += at(S, (t + 1) * N + n) * at(in.C, group + n);
            at(d.z, element) = dy * y * silu_slope(at(in.z, element));
            dy *= silu(at(in.z, element));
          }
          if (!in.D.empty()) at(d.D, h) += dy * x;
          if (!in.D_per_channel.empty()) at(d.D_per_channel, h * P + p) += dy * x;

          double input = 0;      // <dS, B>: what x * delta reaches
          double dlogdecay = 0;  // gradient of delta * A
          for (std::int64_t n = 0; n < N; ++n) {
            at(dS, n) += dy * at(in.C, group + n);
            at(d.C, group + n) += dy * at(S, (t + 1) * N + n);
            at(d.B, group + n) += step * x * at(dS, n);
            input += at(dS, n) * at(in.B, group + n);
            dlogdecay += decay * at(dS, n) * at(S, t * N + n);
            at(dS, n) *= decay;
          }
          at(d.x, element) = step * input + skip * dy;
          at(ddelta, t) += x * input + A * dlogdecay;
          at(d.A, h) += step * dlogdecay;
        }
        if (run.has_state()) std::copy_n(dS.begin(), N, d.initial_states.begin() + state);
      }

      for (std::int64_t t = 0; t < length; ++t) {
        if (at(unclamped, t) < in.dt_min || at(unclamped, t) > in.dt_max) continue;  // held by the clamp
        const double ddt = at(ddelta, t) * (in.dt_softplus ? softplus_slope(at(raw, t)) : 1.0);
        at(d.dt, token(t) * H + h) = ddt;
        if (!in.dt_bias.empty()) at(d.dt_bias, h) += ddt;
      }
    }
  }
  return d;
}

}  // namespace krait::reference
