// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Row functions: what one thread of a host does to a row at unit stride. With Highway they run in vectors of the
/// widest instruction set that the machine has, without it as the compiler makes them. Kernels of a device do not call
/// them.

#include <Kokkos_Core.hpp>

#include <krait/core/config.hpp>
#include <krait/tile/conv_strip.hpp>
#include <krait/tile/norm_group.hpp>
#include <krait/tile/state_rows.hpp>
#include <krait/tile/token_rows.hpp>
#if defined(KRAIT_ENABLE_HIGHWAY)
#include <krait/tile/host/conv_rows.hpp>
#include <krait/tile/host/norm_rows.hpp>
#include <krait/tile/host/state_rows.hpp>
#include <krait/tile/host/token_rows.hpp>
#else
#include <krait/tile/generic/conv_rows.hpp>
#include <krait/tile/generic/norm_rows.hpp>
#include <krait/tile/generic/state_rows.hpp>
#include <krait/tile/generic/token_rows.hpp>
#endif

namespace krait::tile {

#if defined(KRAIT_ENABLE_HIGHWAY)
namespace chosen = host;
#else
namespace chosen = generic;
#endif

template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_rows(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out) {
  KOKKOS_IF_ON_HOST((chosen::conv_rows(strip, tokens, out);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_gradient_rows(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens) {
  KOKKOS_IF_ON_HOST((chosen::conv_gradient_rows(strip, tokens);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void conv_edge_row(const ConvStrip<A>& strip, const A* q, int first_tap, const A* incoming,
                                          T* dx) {
  KOKKOS_IF_ON_HOST((chosen::conv_edge_row(strip, q, first_tap, incoming, dx);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_load(const NormGroup<T, A>& group, A* values, A* squares) {
  KOKKOS_IF_ON_HOST((chosen::norm_load(group, values, squares);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_store(const NormGroup<T, A>& group, const A* scales, A* values, T* out) {
  KOKKOS_IF_ON_HOST((chosen::norm_store(group, scales, values, out);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION NormSums<A> norm_gradient_sums(const NormGroup<T, A>& group, const T* dout, A* sigmoids) {
  KOKKOS_IF_ON_HOST((return chosen::norm_gradient_sums(group, dout, sigmoids);))
  KOKKOS_IF_ON_DEVICE((return {};))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void norm_gradient(const NormGroup<T, A>& group, const T* dout, const A* sigmoids, A r, A c,
                                          const NormGradients<T, A>& to) {
  KOKKOS_IF_ON_HOST((chosen::norm_gradient(group, dout, sigmoids, r, c, to);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void advance_state_rows(const StateRows<T, A>& rows) {
  KOKKOS_IF_ON_HOST((chosen::advance_state_rows(rows);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void load_rows(const InputRows<T, A>& rows) {
  KOKKOS_IF_ON_HOST((chosen::load_rows(rows);))
}

template <class T, class A>
KOKKOS_INLINE_FUNCTION void store_rows(const OutputRows<T, A>& rows) {
  KOKKOS_IF_ON_HOST((chosen::store_rows(rows);))
}

}  // namespace krait::tile
