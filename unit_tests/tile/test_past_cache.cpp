// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Copies past the caches, with every instruction set that this machine has.
#include <gtest/gtest.h>

#include <cstddef>
#include <krait/tile/host/past_cache.hpp>
#include <vector>

#include "instruction_sets.hpp"

namespace {

TEST(PastCache, EveryAlignmentAndLengthIsCopiedAndNothingElse) {
  constexpr unsigned char untouched = 0xee;
  for (const auto& set : krait::test::instruction_sets()) {
    SCOPED_TRACE(set.name);
    krait::test::use(set);
    for (const std::size_t from : {0U, 1U, 60U}) {
      for (const std::size_t to : {0U, 1U, 16U, 63U, 100U}) {
        for (const std::size_t bytes : {0U, 1U, 15U, 64U, 65U, 127U, 300U, 511U, 1000U}) {
          std::vector<unsigned char> source(1200), target(1400, untouched);
          for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<unsigned char>(i * 7 % 131);
          auto want = target;
          for (std::size_t i = 0; i < bytes; ++i) want[to + i] = source[from + i];
          krait::tile::host::copy_past_cache(source.data() + from, target.data() + to, bytes);
          krait::tile::host::finish_past_cache();
          EXPECT_EQ(target, want) << bytes << " bytes from " << from << " to " << to;
        }
      }
    }
  }
  krait::test::use_best_instruction_set();
}

}  // namespace
