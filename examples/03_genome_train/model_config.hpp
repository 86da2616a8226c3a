// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/mixer/mamba_config.hpp>
#include <string>

namespace genome::train {

/// Extents of a model; what its parameters' number follows from.
struct ModelConfig {
  std::int64_t layers = 4;
  std::int64_t d_model = 64;
  std::int64_t d_state = 16;

  /// 8 heads and 4 groups, so that 2 and 4 ranks share heads and groups evenly.
  [[nodiscard]] krait::MambaConfig mixer() const;

  /// \throws krait::ConfigError when no model can have these extents
  void validate() const;

  [[nodiscard]] std::string description() const;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

}  // namespace genome::train
