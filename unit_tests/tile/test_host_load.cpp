// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Copies of tiles in vectors, with every instruction set that this machine has: the conversions of core/scalars.hpp.
#include <gtest/gtest.h>

#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/host/load.hpp>
#include <vector>

#include "instruction_sets.hpp"

namespace {

template <class F, class T>
struct Pair {
  using From = F;
  using To = T;
};

template <class P>
class HostLoad : public testing::Test {
 protected:
  using From = typename P::From;
  using To = typename P::To;

  /// Every element in its place, and nothing written elsewhere.
  void check(int rows, int columns, bool transposed) {
    constexpr int padding = 3;
    const std::int64_t from_pitch = columns + padding;
    const std::int64_t to_pitch = (transposed ? rows : columns) + padding;
    std::vector<From> from(static_cast<std::size_t>((rows + 1) * from_pitch));
    for (std::size_t i = 0; i < from.size(); ++i)
      from[i] = static_cast<From>(static_cast<krait::accumulator_t<From>>(krait::normal(5, 0, i)));
    const To untouched = static_cast<To>(krait::accumulator_t<To>(-77));
    std::vector<To> to(static_cast<std::size_t>(((transposed ? columns : rows) + 1) * to_pitch), untouched);
    std::vector<To> want = to;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) {
        const std::int64_t place = 1 + (transposed ? j * to_pitch + i : i * to_pitch + j);
        want[static_cast<std::size_t>(place)] = static_cast<To>(from[static_cast<std::size_t>(1 + i * from_pitch + j)]);
      }
    }
    const krait::tile::host::LoadCall<From, To> call{rows,       columns,       from.data() + 1,
                                                     from_pitch, to.data() + 1, to_pitch};
    if (transposed) {
      krait::tile::host::load_transposed(call);
    } else {
      krait::tile::host::load(call);
    }
    for (std::size_t k = 0; k < to.size(); ++k)
      ASSERT_EQ(static_cast<double>(to[k]), static_cast<double>(want[k])) << "at " << k;
  }
};

using Pairs = testing::Types<Pair<float, float>, Pair<double, double>, Pair<krait::bfloat16, float>,
                             Pair<krait::float16, float>, Pair<float, krait::bfloat16>, Pair<float, krait::float16>>;
TYPED_TEST_SUITE(HostLoad, Pairs);

TYPED_TEST(HostLoad, EverySizeAndBothWays) {
  const auto sets = krait::test::instruction_sets();
  ASSERT_FALSE(sets.empty());
  for (const auto& set : sets) {
    krait::test::use(set);
    for (const int rows : {0, 1, 2, 3, 4, 5, 7, 8, 13, 33}) {
      for (const int columns : {0, 1, 2, 3, 4, 5, 6, 15, 16, 17, 47, 64, 67}) {
        for (const bool transposed : {false, true}) {
          SCOPED_TRACE(testing::Message() << set.name << ", " << rows << " x " << columns << ", " << transposed);
          this->check(rows, columns, transposed);
        }
      }
    }
  }
  krait::test::use_best_instruction_set();
}

}  // namespace
