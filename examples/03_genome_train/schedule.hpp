// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace genome::train {

/// The learning rate: up in a straight line for `warm_up` steps, then down along half a cosine, which reaches a tenth
/// of `peak` where `steps` end.
struct Schedule {
  double peak = 0;
  std::int64_t warm_up = 0;
  std::int64_t steps = 0;

  [[nodiscard]] double rate(std::int64_t step) const {
    if (step < warm_up) return peak * static_cast<double>(step + 1) / static_cast<double>(warm_up);
    constexpr double pi = 3.141592653589793;
    constexpr double floor = 0.1;
    const double done =
        static_cast<double>(step - warm_up) / static_cast<double>(std::max<std::int64_t>(steps - warm_up, 1));
    return peak * (floor + (1 - floor) * (1 + std::cos(pi * std::min(done, 1.0))) / 2);
  }
};

}  // namespace genome::train
