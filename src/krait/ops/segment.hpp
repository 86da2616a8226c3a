// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The algebra of stretches of sequence. A stretch acts on the state of a head as S_out = alpha * S_in + E with one
/// scalar alpha per head. Such maps compose, so the same few lines serve segments of a device and ranks.

#include <Kokkos_Core.hpp>
#include <krait/tile/tile.hpp>

namespace krait {

/// The factor alpha of a stretch. Its logarithm is kept, since a product over many tokens underflows; a boundary of
/// runs inside the stretch is alpha = 0 and kept as a flag, since its logarithm would be infinite.
template <class V>
struct SegmentDecay {
  V log_alpha = V(0);
  bool carries = true;  ///< false: nothing of the entering state leaves
};

/// The factor of two stretches, one after the other.
template <class V>
KOKKOS_INLINE_FUNCTION SegmentDecay<V> combine(const SegmentDecay<V>& first, const SegmentDecay<V>& second) {
  return {first.log_alpha + second.log_alpha, first.carries && second.carries};
}

/// An element of the leaving state: alpha * entering + E. Where nothing is carried over, the entering state is not
/// looked at, so that not even its infinities leak into the next run.
template <class V>
KOKKOS_INLINE_FUNCTION V advance(const SegmentDecay<V>& decay, V entering, V own) {
  return decay.carries ? tile::decay(decay.log_alpha) * entering + own : own;
}

}  // namespace krait
