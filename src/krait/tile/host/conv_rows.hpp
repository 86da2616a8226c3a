// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The row functions of generic/conv_rows.hpp, for the four scalars, in vectors of the widest instruction set that the
/// machine has, chosen at run time. The channels are the lanes: a sum over tokens or taps has the same order with
/// vectors of any width.

#include <krait/tile/conv_strip.hpp>

namespace krait::tile::host {

template <class T, class A>
void conv_rows(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out);

template <class T, class A>
void conv_gradient_rows(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens);

template <class T, class A>
void conv_edge_row(const ConvStrip<A>& strip, const A* q, int first_tap, const A* incoming, T* dx);

}  // namespace krait::tile::host
