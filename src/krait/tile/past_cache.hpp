// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Copies past the caches of a host: who answers.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/config.hpp>
#if defined(KRAIT_ENABLE_HIGHWAY)
#include <krait/tile/host/past_cache.hpp>
#endif

namespace krait::tile {

/// From so many bytes on, the last level of caches as machines have it, a host writes a tensor past its caches: it
/// would not stay there until somebody reads it, and a store through the cache loads first what it overwrites.
inline constexpr std::int64_t past_cache_bytes = std::int64_t{32} << 20;

/// to[k] = from[k] for k < count, of memory that does not overlap. On a host with Highway past the caches, if it is not
/// too short for that; finish_past_cache() has to follow.
template <class T>
KOKKOS_INLINE_FUNCTION void copy_past_cache(const T* KOKKOS_RESTRICT from, T* KOKKOS_RESTRICT to, std::int64_t count) {
#if defined(KRAIT_ENABLE_HIGHWAY)
  constexpr std::int64_t least = 512 / sizeof(T);
  if (count >= least) {
    KOKKOS_IF_ON_HOST((host::copy_past_cache(from, to, static_cast<std::size_t>(count) * sizeof(T)); return;))
  }
#endif
  for (std::int64_t k = 0; k < count; ++k) to[k] = from[k];
}

/// Once behind some copies, by the thread that made them.
KOKKOS_INLINE_FUNCTION void finish_past_cache() {
#if defined(KRAIT_ENABLE_HIGHWAY)
  KOKKOS_IF_ON_HOST((host::finish_past_cache();))
#endif
}

}  // namespace krait::tile
