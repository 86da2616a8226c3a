// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Some channels of successive tokens, on their way between the caller's tensors (T, a row per token at unit stride)
/// and a panel in scratch memory (A, its accumulator). No Kokkos here, for the sources with vector instructions.

#include <cstdint>

namespace krait::tile {

/// Tokens that go to store_rows() in one call.
inline constexpr int store_rows_at_once = 32;

template <class T, class A>
struct InputRows {
  int tokens;
  std::int64_t channels;
  const T* from;
  std::int64_t pitch;  ///< from one token to the next
  A* to;
  std::int64_t row;  ///< from one token to the next in the panel
};

template <class T, class A>
struct OutputRows {
  int tokens;
  std::int64_t channels;
  const A* from;
  std::int64_t row;   ///< from one token to the next in the panel
  bool past_cache;    ///< what is written does not fit the caches, and need not go through them
  const T* const* z;  ///< (tokens) rows of a gate: what is stored is multiplied by silu(z); nullptr: no gate
  T* const* y;        ///< (tokens) rows for what comes before the gate; nullptr: not wanted
  T* const* out;      ///< (tokens) rows
};

}  // namespace krait::tile
