// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The row functions of the gated norm in vectors of the widest instruction set that the machine has, chosen at run
/// time: the functions of generic/norm_rows.hpp, for the four scalars. The features are the lanes. A sum over a group
/// adds lane by lane and the lanes at the end, so its last bits depend on the instruction set, not on threads.

#include <krait/tile/norm_group.hpp>

namespace krait::tile::host {

template <class T, class A>
void norm_load(const NormGroup<T, A>& group, A* values, A* squares);

template <class T, class A>
void norm_store(const NormGroup<T, A>& group, const A* scales, A* values, T* out);

template <class T, class A>
NormSums<A> norm_gradient_sums(const NormGroup<T, A>& group, const T* dout, A* sigmoids);

template <class T, class A>
void norm_gradient(const NormGroup<T, A>& group, const T* dout, const A* sigmoids, A r, A c,
                   const NormGradients<T, A>& to);

}  // namespace krait::tile::host
