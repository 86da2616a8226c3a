// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The product of two tiles: who answers.

#include <Kokkos_Core.hpp>
#include <type_traits>

#include <krait/core/config.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/coming_rows.hpp>
#include <krait/tile/cuda/gemm.hpp>
#include <krait/tile/generic/gemm.hpp>
#include <krait/tile/host_parts.hpp>
#include <krait/tile/matrix.hpp>
#include <krait/tile/warps.hpp>
#if defined(KRAIT_ENABLE_HIGHWAY)
#include <krait/tile/host/gemm.hpp>
#endif

namespace krait::tile {

#if defined(KRAIT_ENABLE_HIGHWAY)
namespace host {

/// Whether there are products of such elements.
template <class VA, class VB, class VC>
inline constexpr bool has_gemm = std::is_same_v<std::remove_const_t<VA>, VC> &&
                                 std::is_same_v<std::remove_const_t<VB>, VC> && std::is_floating_point_v<VC>;

/// By a team: each thread takes rows.
template <class Member, class V>
void gemm(const Member& team, const GemmCall<V>& call) {
  for_parts(team, call.rows, [&](int first, int count) {
    GemmCall<V> own = call;
    own.rows = count;
    own.a += first * call.a_row;
    own.c += first * call.c_row;
    gemm(own);
  });
}

}  // namespace host
#endif

/// c = a * b + beta * c, with a of rows x inner and b of inner x columns elements; beta == 0 does not read c. Sums are
/// kept in the element type of c, in ascending order of the inner index. Transposes are strides: pass `m.transposed()`.
/// Fast where b and c have unit column stride.
/// A host asks its caller's memory meanwhile for what is `coming`.
template <class Member, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm(const Member& team, int rows, int columns, int inner, Matrix<VA> a, Matrix<VB> b,
                                 VC beta, Matrix<VC> c, [[maybe_unused]] const Coming& coming = {}) {
#if defined(KRAIT_ENABLE_HIGHWAY)
  if constexpr (krait::impl::is_host_execution<typename Member::execution_space> && host::has_gemm<VA, VB, VC>) {
    if (b.column == 1 && c.column == 1) {
      KOKKOS_IF_ON_HOST((const host::GemmCall<VC> call{rows, columns, inner, a.data, a.row, a.column, b.data, b.row,
                                                       beta, c.data, c.row, coming};
                         host::gemm(team, call);))
      return;
    }
  }
#endif
  generic::gemm(team, rows, columns, inner, a, b, beta, c);
}

/// The same where a team may work as warps.
template <class Member, class VA, class VB, class VC>
KOKKOS_INLINE_FUNCTION void gemm(const Member& team, [[maybe_unused]] const ProductKind& kind, int rows, int columns,
                                 int inner, Matrix<VA> a, Matrix<VB> b, VC beta, Matrix<VC> c) {
  if constexpr (has_warp_pieces<typename Member::execution_space, VC>) {
    cuda::gemm(team, kind.tf32, rows, columns, inner, a, b, beta, c);
  } else {
    gemm(team, rows, columns, inner, a, b, beta, c);
  }
}

}  // namespace krait::tile
