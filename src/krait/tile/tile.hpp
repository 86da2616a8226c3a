// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a team does to tiles. The operators call these names; which family of files answers is decided here.
///
/// No piece but scan_chunk(), advance_state() and chunk_pairs() contains a barrier, and these end with one: whoever
/// calls two pieces, of which the second reads what the first wrote, puts `team.team_barrier()` between them. Every
/// thread of the team calls every piece.

#include <type_traits>

#include <krait/tile/chunk_pieces.hpp>
#include <krait/tile/cuda/vector_math.hpp>
#include <krait/tile/gemm.hpp>
#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/load.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/scan_chunk.hpp>
#include <krait/tile/warps.hpp>

namespace krait::tile {

using generic::cumulative_sum;
using generic::decay;
using generic::decay_weights;
using generic::fill;
using generic::for_each;
using generic::sigmoid;
using generic::softplus;
using generic::step_size;

/// v sigmoid(v)
template <class V>
KOKKOS_INLINE_FUNCTION V silu(V v) {
  if constexpr (std::is_same_v<V, float>) {
    KOKKOS_IF_ON_DEVICE((return cuda::silu(v);))
  }
  return generic::silu(v);
}

/// d silu / dv
template <class V>
KOKKOS_INLINE_FUNCTION V silu_derivative(V v) {
  if constexpr (std::is_same_v<V, float>) {
    KOKKOS_IF_ON_DEVICE((return cuda::silu_derivative(v);))
  }
  return generic::silu_derivative(v);
}

}  // namespace krait::tile
