// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/core/runs.hpp>
#include <krait/reference/causal_conv1d_backward.hpp>
#include <krait/reference/gated_rms_norm_backward.hpp>
#include <krait/reference/mamba_mixer.hpp>
#include <krait/reference/projection_backward.hpp>
#include <krait/reference/ssd_scan_backward.hpp>

namespace krait::reference {

/// Gradients of a MambaMixer, each with the extents of what it belongs to; that of an absent parameter is empty.
struct MambaMixerGradients {
  std::vector<double> hidden;
  std::vector<double> in_proj_weight, in_proj_bias, conv_weight, conv_bias, dt_bias, A_log, D, D_per_channel;
  std::vector<double> norm_weight, out_proj_weight, out_proj_bias;
};

/// The backward of the reference operators one after the other.
/// \param hidden  (rows, length, d_model), as given to the mixer
/// \param dout    (rows, length, d_model)
inline MambaMixerGradients mamba_mixer_backward(const MambaMixer& mixer, const std::vector<double>& hidden,
                                                const SequenceRuns& runs, const std::vector<double>& dout) {
  const MambaMixer::Activations a = mixer.activations(hidden, runs);
  MambaMixerGradients d;

  ProjectionGradients out_proj =
      projection_backward(mixer.inner(), mixer.d_model, a.normed, mixer.out_proj_weight, dout);
  d.out_proj_weight = out_proj.weight;
  if (!mixer.out_proj_bias.empty()) d.out_proj_bias = out_proj.bias;

  const GatedRmsNormGradients norm = gated_rms_norm_backward(mixer.norm(a.y, a.z), out_proj.in);
  d.norm_weight = norm.weight;

  const SsdScanGradients scan = ssd_scan_backward(a.scan, runs, norm.x, {});
  d.dt_bias = scan.dt_bias;
  d.D = scan.D;
  d.D_per_channel = scan.D_per_channel;
  for (std::size_t h = 0; h < scan.A.size(); ++h) d.A_log.push_back(a.scan.A[h] * scan.A[h]);

  // One token after the other: a row of each part, side by side.
  const auto append_rows = [](std::vector<double>& to, std::size_t token, const std::vector<double>& from,
                              std::int64_t width) {
    const auto begin = from.begin() + static_cast<std::ptrdiff_t>(token) * width;
    to.insert(to.end(), begin, begin + width);
  };
  const auto tokens = static_cast<std::size_t>(runs.rows() * runs.length());
  std::vector<double> du;
  for (std::size_t t = 0; t < tokens; ++t) {
    append_rows(du, t, scan.x, mixer.inner());
    append_rows(du, t, scan.B, mixer.group_width());
    append_rows(du, t, scan.C, mixer.group_width());
  }
  const CausalConv1dGradients convolution = causal_conv1d_backward(mixer.convolution(a.xBC), runs, du, {});
  d.conv_weight = convolution.weight;
  d.conv_bias = convolution.bias;

  std::vector<double> dprojected;
  for (std::size_t t = 0; t < tokens; ++t) {
    append_rows(dprojected, t, norm.z, mixer.inner());
    append_rows(dprojected, t, convolution.x, mixer.channels());
    append_rows(dprojected, t, scan.dt, mixer.heads);
  }
  const ProjectionGradients in_proj =
      projection_backward(mixer.d_model, mixer.width(), hidden, mixer.in_proj_weight, dprojected);
  d.hidden = in_proj.in;
  d.in_proj_weight = in_proj.weight;
  if (!mixer.in_proj_bias.empty()) d.in_proj_bias = in_proj.bias;
  return d;
}

}  // namespace krait::reference
