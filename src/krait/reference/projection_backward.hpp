// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace krait::reference {

/// Gradients of projection(), each with the extents of what it belongs to.
struct ProjectionGradients {
  std::vector<double> in;
  std::vector<double> weight;
  std::vector<double> bias;
};

/// \param dout  (tokens, outputs); the other arguments as given to projection()
inline ProjectionGradients projection_backward(std::int64_t inputs, std::int64_t outputs, std::span<const double> in,
                                               std::span<const double> weight, std::span<const double> dout) {
  const auto columns = static_cast<std::size_t>(inputs);
  const auto rows = static_cast<std::size_t>(outputs);
  const std::size_t tokens = rows == 0 ? 0 : dout.size() / rows;
  ProjectionGradients d{.in = std::vector<double>(in.size()),
                        .weight = std::vector<double>(rows * columns),
                        .bias = std::vector<double>(rows)};
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t o = 0; o < rows; ++o) {
      const double g = dout[t * rows + o];
      d.bias[o] += g;
      for (std::size_t i = 0; i < columns; ++i) {
        d.in[t * columns + i] += g * weight[o * columns + i];
        d.weight[o * columns + i] += g * in[t * columns + i];
      }
    }
  }
  return d;
}

}  // namespace krait::reference
