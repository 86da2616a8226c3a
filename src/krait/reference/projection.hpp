// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace krait::reference {

/// out = in * weight^T + bias in double precision. Row-major: in is (tokens, inputs), weight (outputs, inputs), bias
/// (outputs) or empty; the result is (tokens, outputs).
inline std::vector<double> projection(std::int64_t inputs, std::int64_t outputs, std::span<const double> in,
                                      std::span<const double> weight, std::span<const double> bias) {
  const auto columns = static_cast<std::size_t>(inputs);
  const auto rows = static_cast<std::size_t>(outputs);
  const std::size_t tokens = columns == 0 ? 0 : in.size() / columns;
  std::vector<double> out(tokens * rows);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t o = 0; o < rows; ++o) {
      double sum = bias.empty() ? 0.0 : bias[o];
      for (std::size_t i = 0; i < columns; ++i) sum += in[t * columns + i] * weight[o * columns + i];
      out[t * rows + o] = sum;
    }
  }
  return out;
}

}  // namespace krait::reference
