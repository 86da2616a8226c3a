// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the row functions of the causal convolution work on. A row holds one token of adjacent channels at unit stride:
/// T as the caller stores it, A its accumulator. No Kokkos here, for the sources with vector instructions.

#include <cstdint>

namespace krait::tile {

inline constexpr int max_conv_taps = 16;

/// A strip of adjacent channels and the parameters of their convolution.
template <class A>
struct ConvStrip {
  std::int64_t channels;
  std::int64_t pitch;  ///< from one row to the next in everything of type A that has several
  int taps;
  bool silu;
  bool past_cache;  ///< what is written does not fit the caches, and need not go through them
  const A* weight;  ///< (taps, pitch)
  const A* bias;    ///< (channels)
};

/// Successive tokens of a run, going forward.
template <class T, class A>
struct ConvTokens {
  int count;
  int next;           ///< rows behind these, which come next and are asked for now
  const T* const* x;  ///< (count + next) rows
  A* history;         ///< (taps - 1, pitch) inputs before them, oldest first; in the end those before the next token
};

/// Successive tokens of a run, with the gradient of their output. q is dout times the slope of the activation.
template <class T, class A>
struct ConvGradientTokens {
  int count;
  int next;  ///< as in ConvTokens
  const T* const* x;
  const T* const* dout;
  A* history;    ///< as in ConvTokens
  A* q;          ///< (taps - 1, pitch) of the tokens before, oldest first; in the end of those before the next token
  A* dweight;    ///< (taps, pitch) added to: sum of q times input; nullptr: not wanted
  A* dbias;      ///< (channels) added to: sum of q; given together with dweight
  T* const* dx;  ///< row t: the gradient of the input of token t - (taps - 1); nullptr: not wanted
};

}  // namespace krait::tile
