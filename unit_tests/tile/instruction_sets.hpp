// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Which instruction set the row functions of tile/host use.

#include <cstdint>
#include <string>
#include <vector>

namespace krait::test {

struct InstructionSet {
  std::int64_t bit;  ///< as Highway numbers it
  std::string name;
};

/// Those that both this machine and the library have.
std::vector<InstructionSet> instruction_sets();

/// From here on only the given one.
void use(const InstructionSet& set);
/// The best one again.
void use_best_instruction_set();

}  // namespace krait::test
