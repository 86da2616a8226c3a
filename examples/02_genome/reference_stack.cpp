// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "reference_stack.hpp"

#include <cmath>
#include <krait/core/runs.hpp>
#include <krait/reference/causal_conv1d.hpp>
#include <krait/reference/gated_rms_norm.hpp>
#include <krait/reference/projection.hpp>
#include <krait/reference/ssd_scan.hpp>

namespace genome {
namespace {

namespace reference = krait::reference;
using Values = std::vector<double>;

/// A parameter, on the host and in double.
template <class View>
Values values_of(const View& view) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view);
  return Values(host.data(), host.data() + host.size());
}

/// Columns [begin, begin + count) of a row-major matrix.
Values columns(const Values& matrix, std::int64_t width, std::int64_t begin, std::int64_t count) {
  Values result;
  for (std::size_t row = 0; row < matrix.size(); row += static_cast<std::size_t>(width)) {
    const auto first = matrix.begin() + static_cast<std::ptrdiff_t>(row) + begin;
    result.insert(result.end(), first, first + count);
  }
  return result;
}

Values negative_exponential(Values values) {
  for (double& value : values) value = -std::exp(value);
  return values;
}

Values mixer(const Mixer& layer, const Values& hidden, std::int64_t tokens) {
  const krait::MambaConfig& config = layer.config();
  const auto& parameters = layer.parameters();
  const auto runs = krait::SequenceRuns::whole_rows(1, tokens);
  const std::int64_t inner = config.d_inner();
  const std::int64_t shared = config.groups * config.d_state;  // width of B, and of C
  const std::int64_t channels = inner + 2 * shared;
  const std::int64_t width = config.projection_width();

  const Values projected =
      reference::projection(config.d_model, width, hidden, values_of(parameters.in_proj_weight), {});
  const Values z = columns(projected, width, 0, inner);
  const Values xBC = columns(projected, width, inner, channels);
  const Values weight = values_of(parameters.conv_weight);
  const Values bias = values_of(parameters.conv_bias);
  const Values conv =
      reference::CausalConv1d{
          .channels = channels, .taps = config.d_conv, .x = xBC, .weight = weight, .bias = bias, .initial = {}}(runs)
          .out;

  reference::SsdScan scan;
  scan.heads = config.head_count();
  scan.head_dim = config.head_dim;
  scan.groups = config.groups;
  scan.d_state = config.d_state;
  scan.x = columns(conv, channels, 0, inner);
  scan.dt = columns(projected, width, inner + channels, config.head_count());
  scan.A = negative_exponential(values_of(parameters.A_log));
  scan.B = columns(conv, channels, inner, shared);
  scan.C = columns(conv, channels, inner + shared, shared);
  scan.D = values_of(parameters.D);
  scan.dt_bias = values_of(parameters.dt_bias);
  const Values y = reference::ssd_scan(scan, runs).out;

  const Values norm_weight = values_of(parameters.norm_weight);
  const Values gated = reference::GatedRmsNorm{.features = inner,
                                               .group_size = inner / config.groups,
                                               .epsilon = config.norm_eps,
                                               .x = y,
                                               .z = z,
                                               .weight = norm_weight,
                                               .bias = {}}();
  return reference::projection(inner, config.d_model, gated, values_of(parameters.out_proj_weight), {});
}

}  // namespace

std::vector<double> reference_prefix(const MixerStack& stack, const Embedding& embedding, const Sequence& sequence,
                                     std::int64_t tokens) {
  Values stream;
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t feature = 0; feature < embedding.width(); ++feature) {
      stream.push_back(embedding(sequence.at(token), feature));
    }
  }
  for (const Mixer& layer : stack.mixers()) {
    const Values normed = reference::GatedRmsNorm{.features = embedding.width(),
                                                  .group_size = embedding.width(),
                                                  .epsilon = norm_epsilon,
                                                  .x = stream,
                                                  .z = {},
                                                  .weight = {},
                                                  .bias = {}}();
    const Values mixed = mixer(layer, normed, tokens);
    for (std::size_t i = 0; i < stream.size(); ++i) stream[i] += mixed[i];
  }
  return stream;
}

}  // namespace genome
