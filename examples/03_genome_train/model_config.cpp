// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "model_config.hpp"

#include <krait/core/error.hpp>

namespace genome::train {
namespace {

constexpr std::int64_t heads = 8;
constexpr std::int64_t groups = 4;
constexpr std::int64_t expand = 2;
constexpr std::int64_t features_per_channel = heads / expand;  // d_model is a multiple of it

}  // namespace

krait::MambaConfig ModelConfig::mixer() const {
  return {.d_model = d_model,
          .head_dim = d_model / features_per_channel,
          .heads = heads,
          .groups = groups,
          .d_state = d_state};
}

void ModelConfig::validate() const {
  if (d_model < features_per_channel || d_model % features_per_channel != 0) {
    throw krait::ConfigError("--d-model must be a multiple of " + std::to_string(features_per_channel) + ", got " +
                             std::to_string(d_model));
  }
  mixer().validate();
}

std::string ModelConfig::description() const {
  return std::to_string(layers) + (layers == 1 ? " layer" : " layers") + " of d_model " + std::to_string(d_model) +
         ", d_state " + std::to_string(d_state);
}

}  // namespace genome::train
