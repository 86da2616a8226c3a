// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>

namespace krait::tile::host {

/// body(first, count) for parts of [0, rows), each by one thread of the team. A team of one has one part: what is done
/// to a tile by vector code is one call.
template <class Member, class Body>
void for_parts(const Member& team, int rows, const Body& body) {
  constexpr int several = 12;
  const int most = team.team_size() == 1 && rows > 0 ? rows : several;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, (rows + most - 1) / most), [&](int part) {
    const int first = part * most;
    body(first, rows - first < most ? rows - first : most);
  });
}

}  // namespace krait::tile::host
