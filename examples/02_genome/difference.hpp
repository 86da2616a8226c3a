// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace genome {

/// How far two runs are apart, over `count` values.
struct Difference {
  double relative_rms = 0;  ///< sqrt(sum (got - wanted)^2 / sum wanted^2)
  double largest = 0;       ///< largest |got - wanted|
};

/// NaN on either side gives a difference of infinity, never agreement.
template <class Got, class Wanted>
Difference difference(const Got* got, const Wanted* wanted, std::size_t count) {
  double squares = 0;
  double scale = 0;
  double largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double apart = std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
    squares += apart * apart;
    scale += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
    largest = std::max(largest, apart);
  }
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (!std::isfinite(squares) || !std::isfinite(scale)) return {infinity, infinity};
  if (scale == 0) return {squares == 0 ? 0 : infinity, largest};
  return {std::sqrt(squares / scale), largest};
}

}  // namespace genome
