// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the row functions of the gated norm work on: adjacent features of one token at unit stride, T as the caller
/// stores them, A their accumulator. No Kokkos here, for the sources with vector instructions.

#include <cstdint>

namespace krait::tile {

/// The same features of the token that comes next, for which a row function asks while it writes: so that memory reads
/// when it would only write.
template <class T>
struct NormNext {
  const T* x = nullptr;  ///< nullptr: there is none
  const T* z = nullptr;  ///< likewise
  const T* dout = nullptr;
};

/// A group of features, a piece of a long one, or adjacent groups of `count` features each.
template <class T, class A>
struct NormGroup {
  std::int64_t count;
  const T* x;
  const T* z;       ///< nullptr: no gate
  const A* weight;  ///< nullptr: 1
  const A* bias;    ///< nullptr: 0
  bool gate_first;  ///< the gate comes before the norm, if there is one
  bool past_cache;  ///< what is written does not fit the caches, and need not go through them
  NormNext<T> next = {};
  std::int64_t groups = 1;

  [[nodiscard]] constexpr std::int64_t features() const { return groups * count; }
  /// `size` features from feature `begin` on, as one group. A constant expression, so that kernels may be compiled for
  /// a device that name it.
  [[nodiscard]] constexpr NormGroup part(std::int64_t begin, std::int64_t size) const {
    const auto from = [begin](const auto* row) { return row == nullptr ? nullptr : row + begin; };
    return {size,       x + begin,  from(z),    from(weight),
            from(bias), gate_first, past_cache, {from(next.x), from(next.z), from(next.dout)}};
  }
  [[nodiscard]] constexpr bool gated_before() const { return z != nullptr && gate_first; }
  [[nodiscard]] constexpr bool gated_after() const { return z != nullptr && !gate_first; }
};

/// Sums over a group that the gradients need. v is what is normalised, dy the gradient behind weight and bias.
template <class A>
struct NormSums {
  A squares;   ///< of v
  A products;  ///< of v weight dy
};

/// Where the gradients of a group go.
template <class T, class A>
struct NormGradients {
  T* dx;
  T* dz;       ///< nullptr without a gate
  T* out;      ///< the output of the forward; nullptr: not wanted
  A* dweight;  ///< added to; nullptr: not wanted
  A* dbias;    ///< likewise
};

}  // namespace krait::tile
