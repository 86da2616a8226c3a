// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "instruction_sets.hpp"

// clang-format off
#include <krait/tile/host/targets.hpp>
#include <hwy/highway.h>
// clang-format on

namespace krait::test {
namespace {

void choose(std::int64_t targets) {
  hwy::SetSupportedTargetsForTest(targets);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace

std::vector<InstructionSet> instruction_sets() {
  use_best_instruction_set();
  std::vector<InstructionSet> sets;
  for (std::int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0; left &= left - 1) {
    const std::int64_t bit = left & -left;
    sets.push_back({bit, hwy::TargetName(bit)});
  }
  return sets;
}

void use(const InstructionSet& set) { choose(set.bit); }
void use_best_instruction_set() { choose(0); }

}  // namespace krait::test
