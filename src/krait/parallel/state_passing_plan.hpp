// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What StatePassing keeps from call to call.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <krait/core/device_table.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/agreement.hpp>
#include <krait/parallel/conv_halo.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/document_states.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <krait/parallel/planner.hpp>
#include <krait/parallel/segment_chain.hpp>
#include <krait/parallel/shard_runs.hpp>
#include <krait/parallel/side_queue.hpp>
#include <krait/parallel/state_exchange.hpp>

namespace krait::impl {

/// All heads of a configuration: what a rank of this strategy works on.
inline HeadPartition all_heads(const SequenceOperatorConfig& config) {
  return {Place{}, {config.heads, config.head_dim, config.groups, config.d_state}, Divisibility::strict};
}

/// The exchange that is asked for, or the one that is expected to be the fastest.
template <Scalar T>
StateExchange exchange_for(const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows) {
  if (config.state_exchange != StateExchange::automatic) return config.state_exchange;
  return Planner()
      .choose(workload_of<T>(config, layout, rows), Strategy::state_passing, StateExchange::automatic)
      .best()
      .exchange;
}

/// Heads whose states travel together.
template <class A, class Exec>
struct HeadBlock {
  std::int64_t number;
  std::int64_t first_head;
  StateMapShape shape;
  StateExchangePlan<A, Exec> ascending, descending;
  /// \name Bytes from where those of all blocks begin
  /// \{
  std::size_t maps, ascending_memory, descending_memory;
  /// \}
};

/// What follows from layout and batch alone.
template <Scalar T, class Exec>
struct PassingExchanges {
  using A = accumulator_t<T>;

  SegmentChain chain;
  ConvHalo<T, Exec> halo;
  StateMapShape shape;  ///< of all heads
  StateExchange form;
  std::int64_t places;  ///< tokens of all rows here
  std::int64_t slots;   ///< segments here, in every row
  std::vector<HeadBlock<A, Exec>> blocks;
  WorkspaceLayout maps, ascending_memory, descending_memory;  ///< of all blocks

  PassingExchanges(const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows)
      : chain(layout),
        halo(chain, layout, rows, config.conv_channels(), config.d_conv),
        shape{.rows = rows, .heads = config.heads, .state_size = config.head_dim * config.d_state},
        form(exchange_for<T>(config, layout, rows)),
        places(rows * layout.local_length()),
        slots(static_cast<std::int64_t>(chain.of(layout.rank()).size()) * rows) {
    const std::int64_t count = head_blocks(config, form, static_cast<std::int64_t>(chain.owners().size()), shape,
                                           std::int64_t{sizeof(A)}, Exec().concurrency());
    for (std::int64_t k = 0; k < count; ++k) {
      StateMapShape part = shape;
      const std::int64_t first = head_block_begin(k, shape.heads, count);
      part.heads = head_block_begin(k + 1, shape.heads, count) - first;
      const auto exchange = [&](ChainDirection direction) {
        return StateExchangePlan<A, Exec>(form, chain.owners(), layout.place(), direction, part);
      };
      const auto ascending = exchange(ChainDirection::ascending);
      const auto descending = exchange(ChainDirection::descending);
      blocks.push_back({.number = k,
                        .first_head = first,
                        .shape = part,
                        .ascending = ascending,
                        .descending = descending,
                        .maps = maps.template add<A>(slots * part.slot()),
                        .ascending_memory = add_bytes(ascending_memory, ascending.workspace_bytes()),
                        .descending_memory = add_bytes(descending_memory, descending.workspace_bytes())});
    }
  }

 private:
  static std::size_t add_bytes(WorkspaceLayout& space, std::size_t bytes) {
    return space.add<std::byte>(static_cast<std::int64_t>(bytes));
  }
};

/// What follows from the documents, for calls with or without states of them.
template <Scalar T, class Exec>
struct PassingCut {
  template <class V>
  using Table = Kokkos::View<const V*, typename Exec::memory_space>;

  DocumentMap documents;
  ShardRuns runs;
  DocumentStates<T, Exec> states;
  Table<SegmentEnd> begins, ends;
  Table<std::int64_t> head_slots, tail_slots, tail_states;
  SequenceRuns first_runs;

  PassingCut(const PassingExchanges<T, Exec>& plan, const SequenceLayout& layout, const DocumentMap& map,
             PieceStates which)
      : documents(map),
        runs(plan.chain, layout, map, which),
        states(runs.parts),
        begins(upload("begins", runs.begins)),
        ends(upload("ends", runs.ends)),
        head_slots(upload("head_slots", runs.head_slots)),
        tail_slots(upload("tail_slots", runs.tail_slots)),
        tail_states(upload("tail_states", runs.tail_states)),
        first_runs(plan.halo.first_runs(runs)) {}

  template <class V>
  static Table<V> upload(const char* name, const std::vector<V>& table) {
    return upload_table<typename Exec::memory_space>(std::string("krait::StatePassing::") + name, table);
  }
};

template <Scalar T, class Exec>
struct PassingPlan : PassingExchanges<T, Exec> {
  using Cut = PassingCut<T, Exec>;

  ConvScan<T, Exec> conv_scan;
  /// Room for the states of pieces in calls with states of documents: how many there are, a layout does not say.
  Workspace<Exec> memory{"krait::StatePassing::states"};

  PassingPlan(const Exec& exec, const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows)
      : PassingExchanges<T, Exec>(config, layout, rows),
        conv_scan(exec, config, all_heads(config), rows, layout.local_length(),
                  static_cast<std::int64_t>(this->blocks.size())) {
    for (std::size_t k = 0; k < this->blocks.size(); ++k) sides_.emplace_back(exec);
  }

  const Cut& cut(const SequenceLayout& layout, const DocumentMap& documents, PieceStates which) {
    std::optional<Cut>& last = cuts_[static_cast<std::size_t>(which)];
    if (!last || !same_documents(last->documents, documents)) last.emplace(*this, layout, documents, which);
    return *last;
  }

  /// Where a block's exchange runs, after all that `exec` holds now.
  const Exec& side(const HeadBlock<accumulator_t<T>, Exec>& block, const Exec& exec) {
    return sides_[static_cast<std::size_t>(block.number)].after(exec);
  }

 private:
  std::array<std::optional<Cut>, 3> cuts_;  ///< by PieceStates
  std::vector<SideQueue<Exec>> sides_;
};

}  // namespace krait::impl
