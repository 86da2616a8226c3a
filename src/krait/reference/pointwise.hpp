// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Scalar functions of the reference operators, with their slopes.

#include <cmath>

namespace krait::reference {

inline double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

inline double silu(double v) { return v / (1 + std::exp(-v)); }
inline double silu_slope(double v) { return sigmoid(v) * (1 + v * (1 - sigmoid(v))); }

inline double softplus(double v) { return v > 20 ? v : std::log1p(std::exp(v)); }
inline double softplus_slope(double v) { return v > 20 ? 1 : sigmoid(v); }

}  // namespace krait::reference
