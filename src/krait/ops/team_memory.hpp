// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How teams share a multiprocessor of a GPU: how much of its memory each may take, and how many run side by side.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <krait/core/kokkos_shims.hpp>

namespace krait::impl {

/// Threads of a team, on a GPU. Two teams of 128 may then take all registers of a multiprocessor.
inline constexpr int team_threads_wanted = 128;
inline constexpr int most_team_threads = 256;

/// Policy of kernels whose teams keep tiles: the compiler knows how many registers there are.
template <class Exec>
using ChipTeamPolicy = std::conditional_t<is_host_execution<Exec>, Kokkos::TeamPolicy<Exec>,
                                          Kokkos::TeamPolicy<Exec, Kokkos::LaunchBounds<most_team_threads, 1>>>;

/// Threads of a team, 0 for the usual: on a GPU whole warps.
template <class Exec>
int team_threads(int wanted) {
  if constexpr (is_host_execution<Exec>) return wanted > 0 ? wanted : 1;
  constexpr int warp = 32;
  const int threads = wanted > 0 ? (wanted + warp - 1) / warp * warp : team_threads_wanted;
  return std::min(threads, most_team_threads);
}

/// What Kokkos keeps back of a multiprocessor's memory when it names its limit (24 KiB and 24 bytes since 5.2), and
/// what one of two teams loses to the system and to the team's own reductions.
inline constexpr std::int64_t kept_back_bytes = 24 << 10;
inline constexpr std::int64_t team_overhead_bytes = 2560;

/// On-chip scratch memory for a team, given Kokkos' limit: half a multiprocessor's, so that one team computes while the
/// other waits for memory. Kokkos before 5.2 offers 48 KiB less its own part, of which several fit anyway; some of it
/// is left for the reductions of the runtime.
inline std::int64_t chip_bytes(std::int64_t limit) {
  constexpr std::int64_t small = std::int64_t(48) << 10;
  if (limit <= small) return limit - 512;
  return (limit + kept_back_bytes) / 2 - team_overhead_bytes;
}

/// Teams with so much scratch memory that run side by side. A GPU's concurrency counts threads, 2048 to a
/// multiprocessor.
template <class Exec>
std::int64_t resident_teams(const Exec& exec, std::int64_t bytes) {
  const std::int64_t concurrency = std::max(1, exec.concurrency());
  if constexpr (is_host_execution<Exec>) return concurrency;
  const std::int64_t limit = Kokkos::TeamPolicy<Exec>(exec, 1, 1).scratch_size_max(0);
  constexpr std::int64_t most = 4;
  const std::int64_t each = std::clamp<std::int64_t>(
      (limit + kept_back_bytes) / std::max<std::int64_t>(1, bytes + team_overhead_bytes), 1, most);
  return std::max<std::int64_t>(1, concurrency / 2048 * (limit <= (48 << 10) ? most : each));
}

}  // namespace krait::impl
