// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a team does to tiles. The operators call these names; which family of files answers is decided here.
///
/// No piece but scan_chunk() contains a barrier: whoever calls two pieces, of which the second reads what the first
/// wrote, puts `team.team_barrier()` between them. Every thread of the team calls every piece.

#include <krait/core/config.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/gemm.hpp>
#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/generic/dots.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/scan_chunk.hpp>
#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/load.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/scan_chunk.hpp>
#if defined(KRAIT_ENABLE_HIGHWAY)
#include <krait/tile/host/scan_chunk.hpp>
#endif

namespace krait::tile {

using generic::column_dots;
using generic::cumulative_sum;
using generic::decay;
using generic::decay_weights;
using generic::fill;
using generic::for_each;
using generic::row_dots;
using generic::scale_rows;
using generic::sigmoid;
using generic::silu;
using generic::silu_derivative;
using generic::softplus;
using generic::step_size;
using generic::sum_below;

/// Outputs of a chunk of tokens of one head, and the state behind it. Ends with a barrier.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scan_chunk(const Member& team, const ScanChunk<V>& chunk) {
#if defined(KRAIT_ENABLE_HIGHWAY)
  if constexpr (impl::is_host_execution<typename Member::execution_space>) {
    // One thread does it: teams of a host are one thread, unless a caller wants them otherwise.
    Kokkos::single(Kokkos::PerTeam(team), [&]() { KOKKOS_IF_ON_HOST((host::scan_chunk(chunk);)) });
    team.team_barrier();
    return;
  }
#endif
  generic::scan_chunk(team, chunk);
}

}  // namespace krait::tile
