// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The smallest case that still fails, for tests that draw theirs at random.

#include <array>
#include <cstddef>
#include <cstdint>

namespace krait::test {

/// Makes `sizes`, which fail, smaller one after the other, by a lot where that fails too, else by a little, until no
/// single step fails any more or `attempts` are used up. Tries the same in every run; ranks that call it together must
/// get the same answers from `fails`.
///
/// \param least  no size becomes smaller than this
template <std::size_t N, class Fails>
std::array<std::int64_t, N> shrink(std::array<std::int64_t, N> sizes, const std::array<std::int64_t, N>& least,
                                   const Fails& fails, int attempts = 300) {
  for (bool smaller = true; smaller;) {
    smaller = false;
    for (std::size_t i = 0; i < N; ++i) {
      for (const std::int64_t size : {least[i], least[i] + (sizes[i] - least[i]) / 2, sizes[i] - 1}) {
        if (size < least[i] || size >= sizes[i]) continue;
        if (attempts-- <= 0) return sizes;
        std::array<std::int64_t, N> tried = sizes;
        tried[i] = size;
        if (!fails(tried)) continue;
        sizes = tried;
        smaller = true;
        break;
      }
    }
  }
  return sizes;
}

}  // namespace krait::test
