// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan.hpp>

namespace krait::impl {

/// What the segments of a row hand over to each other; nothing when there is one. Every segment but the last has a
/// state (P * N, of each head, in the order of the tiles) and a factor per head.
template <Scalar T>
struct SsdScanWorkspace {
  using State = accumulator_t<T>;
  using Decay = SegmentDecay<accumulator_t<T>>;

  SsdScanWorkspace(const SsdScanShape& shape, std::int64_t segments) {
    const std::int64_t maps = shape.batch * (segments - 1) * shape.heads;
    WorkspaceLayout layout;
    states = layout.add<State>(maps * shape.head_dim * shape.d_state);
    decays = layout.add<Decay>(maps);
    bytes = layout.bytes();
  }

  std::size_t states = 0;
  std::size_t decays = 0;
  std::size_t bytes = 0;
};

}  // namespace krait::impl
