// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <string_view>

#include "genome_common/bases.hpp"

namespace genome::train {

/// What the model reads and predicts: the four bases, and N for all that is uncertain.
inline constexpr int symbols = 5;
inline constexpr std::string_view symbol_letters = "ACGTN";

/// The number of a base's symbol, a place in symbol_letters.
constexpr int symbol_of(Base base) {
  switch (base) {
    case 0b0001:
      return 0;
    case 0b0010:
      return 1;
    case 0b0100:
      return 2;
    case 0b1000:
      return 3;
    default:
      return 4;
  }
}

}  // namespace genome::train
