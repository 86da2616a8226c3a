// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <krait/core/runs.hpp>
#include <krait/reference/causal_conv1d.hpp>
#include <krait/reference/gated_rms_norm.hpp>
#include <krait/reference/projection.hpp>
#include <krait/reference/ssd_scan.hpp>

namespace krait::reference {

/// A Mamba-2 mixer in double precision on one rank: the reference operators one after the other. Row-major tensors with
/// the extents named at krait::MambaParameters; an empty vector is an absent parameter.
struct MambaMixer {
  std::int64_t d_model = 1;
  std::int64_t heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t groups = 1;
  std::int64_t d_state = 1;
  std::int64_t d_conv = 4;
  bool silu = true;
  bool rmsnorm = true;
  bool norm_before_gate = false;
  double norm_eps = 1e-5;
  double dt_min = 0;
  double dt_max = std::numeric_limits<double>::infinity();
  std::vector<double> in_proj_weight, in_proj_bias, conv_weight, conv_bias, dt_bias, A_log, D, D_per_channel;
  std::vector<double> norm_weight, out_proj_weight, out_proj_bias;

  /// \param hidden  (rows, length, d_model)
  [[nodiscard]] std::vector<double> operator()(const std::vector<double>& hidden, const SequenceRuns& runs) const {
    const std::int64_t inner = heads * head_dim;
    const std::int64_t channels = inner + 2 * groups * d_state;
    const std::int64_t width = inner + channels + heads;
    const std::vector<double> projected = projection(d_model, width, hidden, in_proj_weight, in_proj_bias);
    const auto columns = [](const std::vector<double>& from, std::int64_t stride, std::int64_t begin,
                            std::int64_t count) {
      std::vector<double> result;
      for (std::size_t row = 0; row < from.size(); row += static_cast<std::size_t>(stride))
        for (std::int64_t c = begin; c < begin + count; ++c) result.push_back(from[row + static_cast<std::size_t>(c)]);
      return result;
    };
    const std::vector<double> z = columns(projected, width, 0, inner);
    const std::vector<double> xBC = columns(projected, width, inner, channels);

    const CausalConv1d convolution{.channels = channels,
                                   .taps = d_conv,
                                   .silu = silu,
                                   .x = xBC,
                                   .weight = conv_weight,
                                   .bias = conv_bias,
                                   .initial = {}};
    const std::vector<double> u = convolution(runs).out;

    SsdScan scan;
    scan.heads = heads;
    scan.head_dim = head_dim;
    scan.groups = groups;
    scan.d_state = d_state;
    scan.dt_min = dt_min;
    scan.dt_max = dt_max;
    scan.x = columns(u, channels, 0, inner);
    scan.B = columns(u, channels, inner, groups * d_state);
    scan.C = columns(u, channels, inner + groups * d_state, groups * d_state);
    scan.dt = columns(projected, width, inner + channels, heads);
    scan.dt_bias = dt_bias;
    scan.D = D;
    scan.D_per_channel = D_per_channel;
    for (const double value : A_log) scan.A.push_back(-std::exp(value));
    const std::vector<double> y = ssd_scan(scan, runs).out;

    const GatedRmsNorm norm{.features = inner,
                            .group_size = inner / groups,
                            .norm_before_gate = norm_before_gate,
                            .normalize = rmsnorm,
                            .epsilon = norm_eps,
                            .x = y,
                            .z = z,
                            .weight = norm_weight,
                            .bias = {}};
    return projection(inner, d_model, norm(), out_proj_weight, out_proj_bias);
  }
};

}  // namespace krait::reference
