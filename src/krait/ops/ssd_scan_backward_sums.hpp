// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The last sums of the scan's backward: what teams that share a gradient have left is added in ascending order, so
/// that the bits do not depend on threads.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/scalars.hpp>
#include <krait/ops/ssd_scan_backward_tiling.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/strided.hpp>

namespace krait::impl {

/// dB and dC: the sums over the blocks of a group, in ascending order; of a group that is begun, on top of what is
/// there.
template <Scalar T, class Exec>
struct SumBlocks {
  using V = accumulator_t<T>;
  Strided<T, 4> dB, dC;
  const V *dB_sums, *dC_sums;
  HeadBlocks blocks;
  std::int64_t length, d_state, begun_groups;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t n = i % d_state;
    const std::int64_t group = i / d_state % blocks.groups;
    const std::int64_t token = i / d_state / blocks.groups;
    const std::int64_t per_group = blocks.per_group();
    T& to_b = dB(token / length, token % length, group, n);
    T& to_c = dC(token / length, token % length, group, n);
    V b = group < begun_groups ? static_cast<V>(to_b) : V(0);
    V c = group < begun_groups ? static_cast<V>(to_c) : V(0);
    for (std::int64_t block = 0; block < per_group; ++block) {
      const HeadRange heads = blocks.block(group, block);
      if (heads.begin == heads.end) break;
      const std::int64_t place = ((token * blocks.groups + group) * per_group + block) * d_state + n;
      b += dB_sums[place];
      c += dC_sums[place];
    }
    to_b = static_cast<T>(b);
    to_c = static_cast<T>(c);
  }
};

/// The gradients of the parameters: the sums over rows and segments, in ascending order.
template <class V>
struct SumParameters {
  Strided<V, 1> dA, ddt_bias, dD;
  Strided<V, 2> dD_per_channel;
  const V *dA_sums, *ddt_bias_sums, *dD_sums;
  std::int64_t stretches;
  std::int64_t heads, head_dim;

  KOKKOS_FUNCTION void operator()(std::int64_t head) const {
    V A = V(0);
    V bias = V(0);
    for (std::int64_t s = 0; s < stretches; ++s) {
      A += dA_sums[s * heads + head];
      bias += ddt_bias_sums[s * heads + head];
    }
    if (dA.given()) dA(head) += A;
    if (ddt_bias.given()) ddt_bias(head) += bias;
    if (!dD.given() && !dD_per_channel.given()) return;
    V skip = V(0);
    for (std::int64_t p = 0; p < head_dim; ++p) {
      V channel = V(0);
      for (std::int64_t s = 0; s < stretches; ++s) channel += dD_sums[(s * heads + head) * head_dim + p];
      if (dD_per_channel.given()) dD_per_channel(head, p) += channel;
      skip += channel;
    }
    if (dD.given()) dD(head) += skip;
  }
};

}  // namespace krait::impl
