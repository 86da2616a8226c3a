// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string_view>

namespace genome {

/// A letter of a sequence as the set of nucleotides it may stand for: A = 1, C = 2, G = 4, T = 8, and the IUPAC codes
/// for an uncertain base are unions, up to N = 15. 0 is no base.
using Base = std::uint8_t;

inline constexpr int base_codes = 16;
inline constexpr std::string_view base_letters = "ACGTRYSWKMBDHVN";

/// The base that an upper- or lower-case letter stands for (U, of RNA, is T), or 0 when it stands for none.
constexpr Base base_from_letter(char letter) {
  switch (letter | 0x20) {
    case 'a':
      return 0b0001;
    case 'c':
      return 0b0010;
    case 'g':
      return 0b0100;
    case 't':
    case 'u':
      return 0b1000;
    case 'r':
      return 0b0101;  // purine
    case 'y':
      return 0b1010;  // pyrimidine
    case 's':
      return 0b0110;  // strong
    case 'w':
      return 0b1001;  // weak
    case 'k':
      return 0b1100;  // keto
    case 'm':
      return 0b0011;  // amino
    case 'b':
      return 0b1110;  // not A
    case 'd':
      return 0b1101;  // not C
    case 'h':
      return 0b1011;  // not G
    case 'v':
      return 0b0111;  // not T
    case 'n':
      return 0b1111;
    default:
      return 0;
  }
}

}  // namespace genome
