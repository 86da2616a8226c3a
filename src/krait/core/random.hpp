// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Counter-based random numbers: a value is a function of (seed, stream, index) alone, so initial parameters and test
/// data do not depend on ranks, threads or the order of evaluation.

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace krait {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers with good avalanche.
KOKKOS_INLINE_FUNCTION constexpr std::uint64_t mix64(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

/// A uniform double in (0, 1), never 0 or 1.
KOKKOS_INLINE_FUNCTION constexpr double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const std::uint64_t bits = mix64(mix64(mix64(seed) ^ stream) ^ index);
  return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
}

/// A standard normal double (Box and Muller), from two uniforms of the same index.
KOKKOS_INLINE_FUNCTION double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  constexpr double two_pi = 6.283185307179586476925286766559;
  const double radius = Kokkos::sqrt(-2.0 * Kokkos::log(uniform(seed, stream, 2 * index)));
  return radius * Kokkos::cos(two_pi * uniform(seed, stream, 2 * index + 1));
}

}  // namespace krait
