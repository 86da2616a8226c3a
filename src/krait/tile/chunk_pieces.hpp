// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The pieces of a chunk of tokens: who answers. On a host one thread does them in vectors, as its teams are one thread
/// unless a caller wants them otherwise. Documented where the portable versions are.

#include <Kokkos_Core.hpp>

#include <krait/core/config.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/chunk_pairs.hpp>
#include <krait/tile/coming_rows.hpp>
#include <krait/tile/cuda/scan_chunk.hpp>
#include <krait/tile/gemm.hpp>
#include <krait/tile/generic/chunk_math.hpp>
#include <krait/tile/generic/dots.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/scan_chunk.hpp>
#include <krait/tile/host/chunk_pairs.hpp>
#include <krait/tile/host/scan_chunk.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/scan_chunk.hpp>
#include <krait/tile/warps.hpp>

namespace krait::tile {

/// Whether the pieces run in vectors of the machine's own instruction set.
template <class Member>
#if defined(KRAIT_ENABLE_HIGHWAY)
inline constexpr bool has_host_pieces = krait::impl::is_host_execution<typename Member::execution_space>;
#else
inline constexpr bool has_host_pieces = false;
#endif

/// Outputs of a chunk of tokens of one head, and the state behind it. Threads of a host have scan_heads().
template <class Member, class V, class E>
KOKKOS_INLINE_FUNCTION void scan_chunk(const Member& team, [[maybe_unused]] const ProductKind& kind,
                                       const ScanChunk<V, E>& chunk) {
  if constexpr (has_warp_pieces<typename Member::execution_space, E>) {
    cuda::scan_chunk(team, kind, chunk);
  } else {
    generic::scan_chunk(team, chunk);
  }
}

/// The same of some heads side by side, on a host.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scan_heads(const Member& team, const ScanHeads<V>& chunk) {
  if constexpr (has_host_pieces<Member>) {
    Kokkos::single(Kokkos::PerTeam(team), [&]() { KOKKOS_IF_ON_HOST((host::scan_heads(chunk);)) });
    team.team_barrier();
  } else {
    KOKKOS_IF_ON_HOST((for (int h = 0; h < chunk.heads; ++h) generic::scan_chunk(team, chunk.head(h));))
  }
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_steps(const Member& team, const ChunkSteps<V>& steps, const StepRule<V>& rule) {
  if constexpr (has_host_pieces<Member>) {
    Kokkos::single(Kokkos::PerTeam(team), [&]() { KOKKOS_IF_ON_HOST((host::chunk_steps(steps, rule);)) });
  } else {
    generic::chunk_steps(team, steps, rule);
  }
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_factors(const Member& team, const ChunkFactors<V>& factors) {
  if constexpr (has_host_pieces<Member>) {
    Kokkos::single(Kokkos::PerTeam(team), [&]() { KOKKOS_IF_ON_HOST((host::chunk_factors(factors);)) });
  } else {
    generic::chunk_factors(team, factors);
  }
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_pairs(const Member& team, const ChunkPairs<V>& pairs) {
  if constexpr (has_host_pieces<Member>) {
    Kokkos::single(Kokkos::PerTeam(team), [&]() { KOKKOS_IF_ON_HOST((host::chunk_pairs(pairs);)) });
    team.team_barrier();
  } else {
    generic::chunk_pairs(team, pairs);
  }
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void row_dots(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b, V* result) {
  if constexpr (has_host_pieces<Member>) {
    if (a.column == 1 && b.column == 1) {
      Kokkos::single(Kokkos::PerTeam(team), [&]() {
        KOKKOS_IF_ON_HOST((host::row_dots(host::TwoPanels<V>{rows, columns, a.data, a.row, b.data, b.row}, result);))
      });
      return;
    }
  }
  generic::row_dots(team, rows, columns, a, b, result);
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void column_dots(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b,
                                        V* result) {
  if constexpr (has_host_pieces<Member>) {
    if (a.column == 1 && b.column == 1) {
      Kokkos::single(Kokkos::PerTeam(team), [&]() {
        KOKKOS_IF_ON_HOST((host::column_dots(host::TwoPanels<V>{rows, columns, a.data, a.row, b.data, b.row}, result,
                                             static_cast<V*>(nullptr), 0);))
      });
      return;
    }
  }
  generic::column_dots(team, rows, columns, a, b, result);
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void column_dots_and_sum(const Member& team, int rows, int columns, Matrix<V> a, Matrix<V> b,
                                                V* result, Matrix<V> sum) {
  if constexpr (has_host_pieces<Member>) {
    if (a.column == 1 && b.column == 1 && sum.column == 1) {
      Kokkos::single(Kokkos::PerTeam(team), [&]() {
        KOKKOS_IF_ON_HOST((host::column_dots(host::TwoPanels<V>{rows, columns, a.data, a.row, b.data, b.row}, result,
                                             sum.data, sum.row);))
      });
      return;
    }
  }
  generic::column_dots_and_sum(team, rows, columns, a, b, result, sum);
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_rows_and_skip(const Member& team, int rows, int columns, const V* factors,
                                                Matrix<V> a, const V* skip, Matrix<V> b) {
  if constexpr (has_host_pieces<Member>) {
    if (a.column == 1 && b.column == 1) {
      Kokkos::single(Kokkos::PerTeam(team), [&]() {
        KOKKOS_IF_ON_HOST((host::scale_rows(rows, columns, factors, a.data, a.row, skip, b.data, b.row);))
      });
      return;
    }
  }
  generic::scale_rows_and_skip(team, rows, columns, factors, a, skip, b);
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_rows(const Member& team, int rows, int columns, const V* factors, Matrix<V> a) {
  scale_rows_and_skip(team, rows, columns, factors, a, static_cast<const V*>(nullptr), Matrix<V>{});
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_columns(const Member& team, int rows, int columns, const V* factors, Matrix<V> a) {
  if constexpr (has_host_pieces<Member>) {
    if (a.column == 1) {
      Kokkos::single(Kokkos::PerTeam(team),
                     [&]() { KOKKOS_IF_ON_HOST((host::scale_columns(rows, columns, factors, a.data, a.row);)) });
      return;
    }
  }
  generic::scale_columns(team, rows, columns, factors, a);
}

/// See ChunkDecays. As scan_chunk(), with barriers in it and at its end.
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void chunk_decays(const Member& team, const ChunkDecays<V>& k) {
  if constexpr (has_warp_pieces<typename Member::execution_space, V>) {
    const cuda::Warp<typename Member::execution_space> warp(team);
    if (warp.index == 0) cuda::chunk_decays(warp, k);
  } else {
    tile::chunk_steps(team, ChunkSteps<V>{k.tokens, k.log_rate, k.steps, nullptr, k.leave}, k.rule);
    team.team_barrier();
    generic::cumulative_sum(team, k.tokens, k.leave, k.high, k.low);
    team.team_barrier();
    tile::chunk_factors(team, ChunkFactors<V>{k.tokens, k.high, k.low, k.steps, k.enter, nullptr, k.leave});
  }
  team.team_barrier();
}

/// state (N, P) = decay state + b (N, Q) x (Q, P), with x times the factors of its rows, which changes it. As
/// scan_chunk(), with a barrier at the end. A host asks its caller's memory meanwhile for what is `coming`.
template <class Member, class V, class E>
KOKKOS_INLINE_FUNCTION void advance_state(const Member& team, [[maybe_unused]] const ProductKind& kind, int tokens,
                                          int d_state, int channels, const V* factors, Matrix<E> b, Matrix<E> x,
                                          V decay, Matrix<V> state, [[maybe_unused]] const Coming& coming) {
  if constexpr (has_warp_pieces<typename Member::execution_space, E>) {
    const cuda::Warp<typename Member::execution_space> warp(team);
    cuda::scale_tile_rows(warp, tokens, channels, factors, x.data, static_cast<int>(x.row));
    team.team_barrier();
    cuda::advance_state(warp, kind,
                        StateUpdate<E>{tokens, d_state, channels, decay, x.data, static_cast<int>(x.row), b.data,
                                       static_cast<int>(b.column), state.data, static_cast<int>(state.column)});
  } else {
    tile::scale_rows(team, tokens, channels, factors, x);
    team.team_barrier();
    tile::gemm(team, d_state, channels, tokens, b, x, decay, state, coming);
  }
  team.team_barrier();
}

}  // namespace krait::tile
