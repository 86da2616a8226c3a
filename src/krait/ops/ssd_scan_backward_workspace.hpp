// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_backward.hpp>

namespace krait::impl {

/// States are (N, P) each, in the order of the tiles.
template <Scalar T>
struct SsdScanBackwardWorkspace {
  using V = accumulator_t<T>;

  SsdScanBackwardWorkspace(const SsdScanShape& shape, std::int64_t segments, const HeadBlocks& blocks,
                           const SsdScanBackwardWork& work) {
    const std::int64_t state = shape.head_dim * shape.d_state;
    const std::int64_t set = work.workers * blocks.head_block * state;
    const std::int64_t boundaries = shape.batch * (segments - 1) * shape.heads;
    const std::int64_t stretches = shape.batch * segments;
    const std::int64_t sums = blocks.one_per_group() ? 0 : shape.batch * shape.length * blocks.count() * shape.d_state;
    WorkspaceLayout layout;
    states = layout.add<V>(set * work.kept_chunks);
    part_states = layout.add<V>(set * (work.parts - 1));
    run_states = layout.add<V>(set);
    gradients = layout.add<V>(set);
    boundary_gradients = layout.add<V>(boundaries * state);
    boundary_decays = layout.add<SegmentDecay<V>>(boundaries);
    dB = layout.add<V>(sums);
    dC = layout.add<V>(sums);
    dA = layout.add<V>(stretches * shape.heads);
    ddt_bias = layout.add<V>(stretches * shape.heads);
    dD = layout.add<V>(stretches * shape.heads * shape.head_dim);
    bytes = layout.bytes();
  }

  std::size_t states = 0;       ///< (workers, kept chunks, heads of a block): entering states
  std::size_t part_states = 0;  ///< (workers, parts - 1, heads of a block): states that enter the parts but the first
  std::size_t run_states = 0;   ///< (workers, heads of a block): the state that enters a run
  std::size_t gradients = 0;    ///< (workers, heads of a block): gradient of the state, between two chunks
  std::size_t boundary_gradients = 0;  ///< (rows, segments - 1, H)
  std::size_t boundary_decays = 0;     ///< (rows, segments - 1, H)
  std::size_t dB = 0;                  ///< (rows, L, blocks, N), unless every group has one block; dC likewise
  std::size_t dC = 0;
  std::size_t dA = 0;        ///< (rows, segments, H)
  std::size_t ddt_bias = 0;  ///< (rows, segments, H)
  std::size_t dD = 0;        ///< (rows, segments, H, P)
  std::size_t bytes = 0;
};

}  // namespace krait::impl
