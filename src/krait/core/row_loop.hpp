// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <string>

#include <krait/core/kokkos_shims.hpp>

namespace krait::impl {

template <class Exec, class Body>
struct RowLoop {
  std::int64_t rows, width;
  Body body;

  KOKKOS_FUNCTION void operator()(const typename Kokkos::TeamPolicy<Exec>::member_type& team) const {
    for (std::int64_t row = team.league_rank(); row < rows; row += team.league_size()) {
      Kokkos::parallel_for(Kokkos::TeamThreadRange(team, width), [&](std::int64_t i) { body(row, i); });
    }
  }
};

/// body(row, i) for all rows and all i in [0, width). Rows go side by side; the elements of a row go to neighbouring
/// threads, or in one plain loop on a host. What a row needs to know of itself is found without a division per element.
template <class Exec, class Body>
void for_rows(const std::string& label, const Exec& exec, std::int64_t rows, std::int64_t width, const Body& body) {
  if (rows <= 0 || width <= 0) return;
  constexpr int team_size = is_host_execution<Exec> ? 1 : 128;
  const auto teams = static_cast<int>(std::min<std::int64_t>(rows, std::int64_t{1} << 20));
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, teams, team_size), RowLoop<Exec, Body>{rows, width, body});
}

}  // namespace krait::impl
