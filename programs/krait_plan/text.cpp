// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/text.hpp"

namespace plan {

std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto i = static_cast<std::int64_t>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

std::string duration(double seconds) {
  if (seconds >= 1) return text("%.3g s", seconds);
  return seconds >= 1e-3 ? text("%.3g ms", 1e3 * seconds) : text("%.3g us", 1e6 * seconds);
}

}  // namespace plan
