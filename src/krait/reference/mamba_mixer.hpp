// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
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
  std::vector<double> in_proj_weight = {}, in_proj_bias = {}, conv_weight = {}, conv_bias = {};
  std::vector<double> dt_bias = {}, A_log = {}, D = {}, D_per_channel = {};
  std::vector<double> norm_weight = {}, out_proj_weight = {}, out_proj_bias = {};

  /// \name Widths of a token's projection, which is z | xBC | dt, and of xBC, which is x | B | C
  /// \{
  [[nodiscard]] std::int64_t inner() const { return heads * head_dim; }
  [[nodiscard]] std::int64_t group_width() const { return groups * d_state; }
  [[nodiscard]] std::int64_t channels() const { return inner() + 2 * group_width(); }
  [[nodiscard]] std::int64_t width() const { return inner() + channels() + heads; }
  /// \}

  /// What one operator hands to the next.
  struct Activations {
    std::vector<double> z;
    std::vector<double> xBC;
    SsdScan scan;
    std::vector<double> y;
    std::vector<double> normed;
  };

  /// \param hidden  (rows, length, d_model)
  [[nodiscard]] std::vector<double> operator()(const std::vector<double>& hidden, const SequenceRuns& runs) const {
    return projection(inner(), d_model, activations(hidden, runs).normed, out_proj_weight, out_proj_bias);
  }

  [[nodiscard]] Activations activations(const std::vector<double>& hidden, const SequenceRuns& runs) const {
    const std::vector<double> projected = projection(d_model, width(), hidden, in_proj_weight, in_proj_bias);
    Activations a;
    a.z = columns(projected, width(), 0, inner());
    a.xBC = columns(projected, width(), inner(), channels());
    const std::vector<double> u = convolution(a.xBC)(runs).out;
    a.scan.heads = heads;
    a.scan.head_dim = head_dim;
    a.scan.groups = groups;
    a.scan.d_state = d_state;
    a.scan.dt_min = dt_min;
    a.scan.dt_max = dt_max;
    a.scan.x = columns(u, channels(), 0, inner());
    a.scan.B = columns(u, channels(), inner(), group_width());
    a.scan.C = columns(u, channels(), inner() + group_width(), group_width());
    a.scan.dt = columns(projected, width(), inner() + channels(), heads);
    a.scan.dt_bias = dt_bias;
    a.scan.D = D;
    a.scan.D_per_channel = D_per_channel;
    for (const double value : A_log) a.scan.A.push_back(-std::exp(value));
    a.y = ssd_scan(a.scan, runs).out;
    a.normed = norm(a.y, a.z)();
    return a;
  }

  [[nodiscard]] CausalConv1d convolution(std::span<const double> xBC) const {
    return {.channels = channels(),
            .taps = d_conv,
            .silu = silu,
            .x = xBC,
            .weight = conv_weight,
            .bias = conv_bias,
            .initial = {}};
  }

  [[nodiscard]] GatedRmsNorm norm(std::span<const double> y, std::span<const double> z) const {
    return {.features = inner(),
            .group_size = inner() / groups,
            .norm_before_gate = norm_before_gate,
            .normalize = rmsnorm,
            .epsilon = norm_eps,
            .x = y,
            .z = z,
            .weight = norm_weight,
            .bias = {}};
  }

 private:
  /// Columns [begin, begin + count) of a row-major matrix with rows of `stride`.
  static std::vector<double> columns(const std::vector<double>& from, std::int64_t stride, std::int64_t begin,
                                     std::int64_t count) {
    std::vector<double> result;
    for (std::size_t row = 0; row < from.size(); row += static_cast<std::size_t>(stride))
      for (std::int64_t c = begin; c < begin + count; ++c) result.push_back(from[row + static_cast<std::size_t>(c)]);
    return result;
  }
};

}  // namespace krait::reference
