// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/figures.hpp"

#include <cstdio>

namespace genome {

std::string text(double value, const char* format) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string mebibytes(std::int64_t bytes) { return text(static_cast<double>(bytes) / (1 << 20), "%.2f MiB"); }

}  // namespace genome
