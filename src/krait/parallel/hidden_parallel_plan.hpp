// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What HiddenParallel keeps from call to call.

#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/core/kokkos_shims.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <krait/parallel/head_states.hpp>
#include <krait/parallel/saving.hpp>
#include <krait/parallel/side_queue.hpp>

namespace krait::impl {

/// The heads of a configuration, shared out among ranks.
inline HeadPartition shared_heads(const SequenceOperatorConfig& config, const Place& place) {
  return {place, {config.heads, config.head_dim, config.groups, config.d_state}, config.divisibility};
}

/// Block k of the rank's heads, by their numbers among these.
inline UnitRange own_block(const HeadPartition& partition, std::int64_t k, std::int64_t blocks) {
  UnitRange heads = partition.block(partition.rank(), k, blocks);
  heads.begin -= partition.heads_begin(partition.rank());
  return heads;
}

/// A block of heads in a forward, which travels while others are worked on.
template <Scalar T, class Exec>
struct HeadPart {
  std::int64_t number;
  UnitRange heads;                                 ///< among the rank's own
  std::int64_t inner, channels;                    ///< columns x, and x | B | C; those of dt come behind
  std::vector<SectionTable::Piece> conv, columns;  ///< where x | B | C, and x | B | C | dt, lie among the rank's own
  Redistribution<T, Exec> enter, leave;

  HeadPart(const HeadPartition& partition, const SequenceLayout& layout, std::int64_t batch, std::int64_t k,
           std::int64_t blocks)
      : number(k),
        heads(own_block(partition, k, blocks)),
        enter(layout, partition.projection_block(k, blocks), batch),
        leave(layout, partition.inner_block(k, blocks), batch) {
    const HeadShape& shape = partition.shape();
    const std::int64_t of_groups = 2 * partition.groups();  // B and C come with the first
    std::vector<Section> sections{{"x", partition.heads(), shape.head_dim, {heads}},
                                  {"B, C", of_groups, shape.d_state, {{0, k == 0 ? of_groups : 0}}}};
    inner = heads.count * shape.head_dim;
    channels = inner + sections[1].of_rank[0].count * shape.d_state;
    conv = SectionTable(sections).pieces(0);
    sections.push_back({"dt", partition.heads(), 1, {heads}});
    columns = SectionTable(sections).pieces(0);
  }

  [[nodiscard]] std::int64_t conv_elements() const { return enter.rows() * enter.layout().length() * channels; }
};

/// What a backward exchanges and works on at a time: a block of heads, or B and C, which are a part by themselves where
/// there are several blocks (HeadPartition::gradient_part).
template <Scalar T, class Exec>
struct GradientPart {
  std::int64_t number;
  bool has_heads;                 ///< is a block of heads, on a rank without heads, too
  UnitRange heads;                ///< among the rank's own
  std::int64_t inner, channels;   ///< columns x, and x | B | C; those of dt come behind, then those of dy
  std::int64_t first_channel;     ///< of its x | B | C among the rank's own
  Redistribution<T, Exec> enter;  ///< x | B | C | dt | dy
  Redistribution<T, Exec> leave;  ///< gradients of x | B | C | dt

  GradientPart(const HeadPartition& partition, const SequenceLayout& layout, std::int64_t batch, std::int64_t k,
               std::int64_t blocks)
      : number(k),
        has_heads(k < blocks),
        heads(has_heads ? own_block(partition, k, blocks) : UnitRange()),
        inner(heads.count * partition.shape().head_dim),
        first_channel(has_heads ? heads.begin * partition.shape().head_dim : partition.d_inner_local()),
        enter(layout, partition.backward_part(k, blocks), batch),
        leave(layout, partition.gradient_part(k, blocks), batch) {
    channels = leave.local_width() - heads.count;
  }
};

/// The plans of all exchanges of one layout and batch.
template <Scalar T, class Exec>
struct HiddenExchanges {
  HeadPartition partition;
  std::int64_t rows, length;
  std::vector<HeadPart<T, Exec>> parts;               ///< of a forward
  std::vector<GradientPart<T, Exec>> gradient_parts;  ///< of a backward; B and C are in the last one

  HiddenExchanges(const SequenceOperatorConfig& config, const Place& place, const SequenceLayout& layout,
                  std::int64_t batch)
      : partition(shared_heads(config, place)), rows(batch), length(layout.length()) {
    const std::int64_t blocks = shared_head_blocks(config, layout.ranks(), !is_host_execution<Exec>);
    for (std::int64_t k = 0; k < blocks; ++k) parts.emplace_back(partition, layout, batch, k, blocks);
    for (std::int64_t k = 0; k < HeadPartition::backward_parts(blocks); ++k)
      gradient_parts.emplace_back(partition, layout, batch, k, blocks);
  }

  /// One rank, which has all there is and exchanges nothing.
  [[nodiscard]] bool alone() const { return parts.front().enter.passthrough(); }
  [[nodiscard]] std::int64_t blocks() const { return static_cast<std::int64_t>(parts.size()); }
  [[nodiscard]] std::int64_t places() const { return rows * length; }
  /// Columns x | B | C | dt of the rank.
  [[nodiscard]] std::int64_t input_width() const { return partition.projection_width_local(partition.rank(), false); }
  [[nodiscard]] std::int64_t conv_elements() const { return places() * partition.conv_channels_local(); }
  /// What a part of a backward enters: all of it, or dy alone, which is nothing where there are no heads.
  [[nodiscard]] const Redistribution<T, Exec>* entering(const GradientPart<T, Exec>& part, Saving saving) const {
    if (saving == Saving::lean) return &part.enter;
    return part.has_heads ? &parts[static_cast<std::size_t>(part.number)].leave : nullptr;
  }
};

template <Scalar T, class Exec>
struct HiddenPlan : HiddenExchanges<T, Exec> {
  ConvScan<T, Exec> whole;
  HeadStates<T, Exec> states;

  HiddenPlan(const Exec& exec, const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t batch)
      : HiddenExchanges<T, Exec>(config, layout.place(), layout, batch),
        whole(exec, config, this->partition, batch, layout.length(), this->blocks(), this->blocks()),
        states(this->partition, config.d_conv) {
    for (std::size_t k = 0; k < this->gradient_parts.size(); ++k) sides_.emplace_back(exec);
  }

  /// Where a part travels, after all that `exec` holds now.
  const Exec& side(std::int64_t part, const Exec& exec) { return sides_[static_cast<std::size_t>(part)].after(exec); }

  /// This rank's channels of initial states of the convolution, in memory of the plan; absent if they are.
  [[nodiscard]] Tensor<accumulator_t<T>***, Exec> initial_conv(const Exec& exec,
                                                               const Tensor<const T***, Exec>& initial) const {
    if (is_absent(initial)) return {};
    const auto channels = states.template first<accumulator_t<T>>(static_cast<std::int64_t>(initial.extent(0)));
    states.gather(exec, initial, channels);
    return channels;
  }

 private:
  std::vector<SideQueue<Exec>> sides_;
};

}  // namespace krait::impl
