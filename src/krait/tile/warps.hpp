// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Whether a team works as warps, with tensor cores where the operands allow it, and what its tiles are made of then.

#include <Kokkos_Core.hpp>
#include <type_traits>

#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/product.hpp>

namespace krait::tile {

/// KRAIT_EMULATE_WARPS makes a host do what a GPU would: tests run whole operators so.
template <class Exec, Scalar T>
#if defined(KRAIT_EMULATE_WARPS)
inline constexpr bool has_warp_pieces = std::is_same_v<accumulator_t<T>, float>;
#else
inline constexpr bool has_warp_pieces = krait::impl::has_tensor_cores<Exec> && std::is_same_v<accumulator_t<T>, float>;
#endif

/// Whether a host does the pieces of a chunk, in vectors or not.
template <class Exec, Scalar T>
inline constexpr bool has_host_layout = krait::impl::is_host_execution<Exec> && !has_warp_pieces<Exec, T>;

/// What inputs are kept as in scratch memory: as they are stored where tensor cores take them so, else as accumulators.
template <class Exec, Scalar T>
using operand_t = std::conditional_t<has_warp_pieces<Exec, T>, T, accumulator_t<T>>;

using cuda::ProductKind;

}  // namespace krait::tile
