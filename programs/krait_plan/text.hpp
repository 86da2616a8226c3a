// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace plan {

template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[160];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

/// Three digits and s, ms or us.
std::string duration(double seconds);

/// 12345678 as 12,345,678.
std::string grouped(std::int64_t value);

}  // namespace plan
