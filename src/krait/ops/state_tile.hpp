// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// States between the caller's tensors, (states, heads, head_dim, d_state), and a team's tiles, which are transposed:
/// (d_state, channels).

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/mixed_tensor.hpp>
#include <krait/core/scalars.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// Channels [channel, channel + channels) of a head's state.
template <class Member, Scalar T, class Exec>
KOKKOS_INLINE_FUNCTION void load_state_tile(const Member& team, const MixedTensor<T, 4, Exec>& states,
                                            std::int64_t state, int head, int channel, int channels, int d_state,
                                            tile::Matrix<accumulator_t<T>> to) {
  states.visit([&](const auto* data) {
    using V = std::remove_pointer_t<decltype(data)>;
    const std::int64_t first = state * states.stride(0) + head * states.stride(1) + channel * states.stride(2);
    tile::load(team, channels, d_state, tile::Matrix<V>{data + first, states.stride(2), states.stride(3)},
               to.transposed());
  });
}

template <class Member, class V>
KOKKOS_INLINE_FUNCTION void store_state_tile(const Member& team, tile::Matrix<V> from, const Strided<V, 4>& states,
                                             std::int64_t state, int head, int channel, int channels, int d_state) {
  tile::load(team, d_state, channels, from,
             tile::Matrix<V>{&states(state, head, channel, 0), states.stride[2], states.stride[3]}.transposed());
}

}  // namespace krait::impl
