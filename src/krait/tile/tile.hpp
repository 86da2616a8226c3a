// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a team does to tiles. The operators call these names; which family of files answers is decided here.
///
/// No piece contains a barrier: whoever calls two pieces, of which the second reads what the first wrote, puts
/// `team.team_barrier()` between them. Every thread of the team calls every piece.

#include <krait/tile/gemm.hpp>
#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/generic/dots.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile {

using generic::column_dots;
using generic::cumulative_sum;
using generic::decay;
using generic::decay_weights;
using generic::fill;
using generic::for_each;
using generic::load;
using generic::row_dots;
using generic::scale_rows;
using generic::sigmoid;
using generic::silu;
using generic::silu_derivative;
using generic::softplus;
using generic::sum_below;

}  // namespace krait::tile
