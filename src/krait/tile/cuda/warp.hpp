// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The warps of a team. Code for warps keeps what a lane has in arrays of `slots`: on a GPU there is one, the calling
/// thread's. On a host a thread stands for a whole warp, with a slot for each of its lanes: slow, and good enough to
/// test everything that the lanes do without a GPU.

#include <Kokkos_Core.hpp>

#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/cuda/fragments.hpp>

/// Before a loop that the compiler should leave as it is, since it would only take registers; and before one over
/// registers, which have no addresses.
#if defined(__CUDA_ARCH__)
#define KRAIT_ROLLED _Pragma("unroll 1")
#define KRAIT_UNROLLED _Pragma("unroll")
#else
#define KRAIT_ROLLED
#define KRAIT_UNROLLED
#endif

namespace krait::tile::cuda {

template <class Exec>
class Warp {
 public:
  static constexpr bool emulated = krait::impl::is_host_execution<Exec>;
  static constexpr int slots = emulated ? warp_size : 1;

  /// Of a team of whole warps, with vector length 1.
  template <class Member>
  KOKKOS_INLINE_FUNCTION explicit Warp(const Member& team)
      : index(emulated ? team.team_rank() : team.team_rank() / warp_size),
        count(emulated ? team.team_size() : team.team_size() / warp_size),
        first_lane_(emulated ? 0 : team.team_rank() % warp_size) {}

  [[nodiscard]] KOKKOS_INLINE_FUNCTION int lane(int slot) const { return first_lane_ + slot; }

  /// value[lane] becomes that of the lane `distance` before, where there is one.
  KOKKOS_INLINE_FUNCTION void shift_up(int distance, const float (&value)[slots], float (&shifted)[slots]) const {
#if defined(__CUDA_ARCH__)
    shifted[0] = __shfl_up_sync(0xffffffffU, value[0], distance);
#else
    for (int s = 0; s < slots; ++s) shifted[s] = value[s < distance ? s : s - distance];
#endif
  }

  /// The value of one lane.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION float broadcast(int lane, const float (&value)[slots]) const {
#if defined(__CUDA_ARCH__)
    return __shfl_sync(0xffffffffU, value[0], lane);
#else
    return value[lane % slots];
#endif
  }

  int index;  ///< in the team
  int count;  ///< of the team

 private:
  int first_lane_;
};

}  // namespace krait::tile::cuda
