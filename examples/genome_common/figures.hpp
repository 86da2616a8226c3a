// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

namespace genome {

/// \param format  of printf, for one double
std::string text(double value, const char* format);

std::string mebibytes(std::int64_t bytes);

}  // namespace genome
