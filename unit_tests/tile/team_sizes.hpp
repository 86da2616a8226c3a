// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <vector>

namespace krait_test {

/// Team sizes on which a piece must agree: 1, 2 and 3 threads where the space can make such teams.
template <class Functor>
std::vector<int> team_sizes(const Functor& functor) {
  const int most = Kokkos::TeamPolicy<>(1, 1).team_size_max(functor, Kokkos::ParallelForTag());
  std::vector<int> result;
  for (const int size : {1, 2, 3, 64}) {
    if (size <= most) result.push_back(size);
  }
  return result;
}

}  // namespace krait_test
