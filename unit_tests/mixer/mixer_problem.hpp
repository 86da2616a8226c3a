// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/mixer/mamba_mixer.hpp>
#include <krait/reference/mamba_mixer.hpp>
#include <parallel/sharded.hpp>
#include <support/random_view.hpp>
#include <support/view_values.hpp>
#include <vector>

namespace krait::test {

inline MambaConfig small_mixer(std::int64_t groups) {
  return {.d_model = 24, .head_dim = 6, .groups = groups, .d_state = 5, .chunk_size = 16};
}

/// The reference with a mixer's parameters.
template <Scalar T>
reference::MambaMixer reference_of(const MambaMixer<T>& mixer) {
  const MambaConfig& config = mixer.config();
  const auto& parameters = mixer.parameters();
  return {.d_model = config.d_model,
          .heads = config.head_count(),
          .head_dim = config.head_dim,
          .groups = config.groups,
          .d_state = config.d_state,
          .d_conv = config.d_conv,
          .silu = config.activation == Activation::silu,
          .rmsnorm = config.rmsnorm,
          .norm_before_gate = config.norm_before_gate,
          .norm_eps = config.norm_eps,
          .dt_min = config.dt_limit.first,
          .dt_max = config.dt_limit.second,
          .in_proj_weight = values_of(parameters.in_proj_weight),
          .in_proj_bias = values_of(parameters.in_proj_bias),
          .conv_weight = values_of(parameters.conv_weight),
          .conv_bias = values_of(parameters.conv_bias),
          .dt_bias = values_of(parameters.dt_bias),
          .A_log = values_of(parameters.A_log),
          .D = values_of(parameters.D),
          .D_per_channel = values_of(parameters.D_per_channel),
          .norm_weight = values_of(parameters.norm_weight),
          .out_proj_weight = values_of(parameters.out_proj_weight),
          .out_proj_bias = values_of(parameters.out_proj_bias)};
}

/// Runs a mixer on this rank's shard of the problem; returns its output.
template <Scalar T>
std::vector<double> run_mixer(MambaMixer<T>& mixer, const Communicator& context, const SequenceLayout& layout,
                              const DocumentMap& documents) {
  const Exec exec;
  const std::int64_t width = mixer.config().d_model;
  const auto hidden = make_shard<T>(layout, documents.rows(), width, normal_values(21, layout.length(), width));
  const auto out = poisoned_view<Array<T***>>(documents.rows(), layout.local_length(), width);
  mixer.forward(exec, context, hidden, layout, documents, out);
  exec.fence("krait::test: forward is done");
  return values_of(out);
}

/// The whole output of the reference, as a View.
template <Scalar T>
Array<double***> reference_output(const MambaMixer<T>& mixer, const DocumentMap& documents) {
  const std::int64_t width = mixer.config().d_model;
  const auto alone = SequenceLayout::contiguous(Place{}, documents.length());
  const auto hidden = make_shard<T>(alone, documents.rows(), width, normal_values(21, documents.length(), width));
  const auto values = reference_of(mixer)(values_of(hidden), documents.runs());
  const Array<double***> whole("krait::test::reference", hidden.extent(0), hidden.extent(1), hidden.extent(2));
  std::copy(values.begin(), values.end(), whole.data());
  return whole;
}

}  // namespace krait::test
