// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Copies of tiles: who answers.

#include <Kokkos_Core.hpp>
#include <type_traits>

#include <krait/core/config.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/copy.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/host_parts.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/warps.hpp>
#if defined(KRAIT_ENABLE_HIGHWAY)
#include <krait/tile/host/load.hpp>
#endif

namespace krait::tile {

#if defined(KRAIT_ENABLE_HIGHWAY)
namespace host {

/// Whether there are copies from one to the other: between a scalar and its accumulator.
template <class From, class To>
inline constexpr bool has_load = std::is_same_v<accumulator_t<std::remove_const_t<From>>, To> ||
                                 std::is_same_v<accumulator_t<To>, std::remove_const_t<From>>;

/// By a team: each thread takes rows of `from`, whose columns have unit stride.
template <class Member, class From, class To>
void load(const Member& team, int rows, int columns, Matrix<const From> from, Matrix<To> to) {
  for_parts(team, rows, [&](int first, int count) {
    const Matrix<To> target = to.from(first, 0);
    if (to.column == 1) {
      load<From, To>({count, columns, from.data + first * from.row, from.row, target.data, target.row});
    } else {
      load_transposed<From, To>({count, columns, from.data + first * from.row, from.row, target.data, target.column});
    }
  });
}

}  // namespace host
#endif

/// to(i, j) = from(i, j), converted to the element type of `to`. Transpose either side to transpose on the way. Fast
/// where each of the two has a unit stride.
template <class Member, class From, class To>
KOKKOS_INLINE_FUNCTION void load(const Member& team, int rows, int columns, Matrix<From> from, Matrix<To> to) {
#if defined(KRAIT_ENABLE_HIGHWAY)
  if constexpr (krait::impl::is_host_execution<typename Member::execution_space> && host::has_load<From, To>) {
    using Source = std::remove_const_t<From>;
    const Matrix<const Source> source{from.data, from.row, from.column};
    if (to.column == 1 || to.row == 1) {
      if (from.column == 1) {
        KOKKOS_IF_ON_HOST((host::load(team, rows, columns, source, to);))
        return;
      }
      if (from.row == 1) {
        KOKKOS_IF_ON_HOST((host::load(team, columns, rows, source.transposed(), to.transposed());))
        return;
      }
    }
  }
#endif
  generic::load(team, rows, columns, from, to);
}

/// Starts load() into a tile of operands, by tokens. It has been done behind await_loads().
template <class Member, class T, class E>
KOKKOS_INLINE_FUNCTION void start_load(const Member& team, [[maybe_unused]] const ProductKind& kind, int tokens,
                                       int columns, Matrix<const T> from, Matrix<E> to) {
  if constexpr (has_warp_pieces<typename Member::execution_space, E>) {
    cuda::start_load(team, kind.on_chip, tokens, columns, from, to.data, static_cast<int>(to.row));
  } else {
    load(team, tokens, columns, from, to);
  }
}

/// What warps read behind the last token of a tile becomes 0. start_load() has done that.
template <class Member, class E>
KOKKOS_INLINE_FUNCTION void clear_behind(const Member& team, int tokens, int columns, Matrix<E> tile) {
  if constexpr (has_warp_pieces<typename Member::execution_space, E>) {
    generic::fill(team, cuda::whole_tiles(tokens) - tokens, columns, E(0), tile.from(tokens, 0));
  }
}

/// Barrier of the team, behind which all that it has started to load is there.
template <class Member>
KOKKOS_INLINE_FUNCTION void await_loads(const Member& team) {
  if constexpr (krait::impl::has_tensor_cores<typename Member::execution_space>) cuda::await_copies();
  team.team_barrier();
}

}  // namespace krait::tile
