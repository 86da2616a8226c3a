// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/warps.hpp>

#include <support/allclose.hpp>

namespace krait::test {

/// Whether the products of a scan of T round their factors to T, on tensor cores. Then single elements of long sums may
/// be further off than the last place, and the sum of squares is what holds.
template <Scalar T>
inline constexpr bool rounds_operands = sizeof(T) == 2 && tile::has_warp_pieces<Kokkos::DefaultExecutionSpace, T>;

inline constexpr Tolerance rounded_operands{.nmse = 2.5e-5, .unbounded_error = true};

/// The bounds for what a scan of T keeps in accumulators: states, and gradients of parameters.
template <Scalar T>
Tolerance accumulated_tolerance() {
  return rounds_operands<T> ? rounded_operands : tolerance<accumulator_t<T>>();
}

/// The bounds for gradients that are stored as T, and between two scans that are cut differently.
template <Scalar T>
Tolerance stored_tolerance() {
  return rounds_operands<T> ? rounded_operands : tolerance<T>();
}

}  // namespace krait::test
