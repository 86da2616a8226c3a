// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Documents as a rank sees them that holds some segments of each row.

#include <cstdint>
#include <vector>

#include <krait/core/device_table.hpp>
#include <krait/core/runs.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/parallel/segment_chain.hpp>

namespace krait::impl {

/// What an end of a segment hands on.
enum class SegmentEnd : std::int8_t {
  closed,   ///< no document goes on there
  opens,    ///< one does, and it has its other end in this segment
  carries,  ///< one does that covers the whole segment: what enters at the other end leaves here
};

/// The *pieces* of a rank: its segments cut where documents begin and end, as runs of local positions. The piece whose
/// document began before the segment is its *head piece*; the one whose document goes on behind it its *tail piece*.
/// Both may be the same.
///
/// Segment j of the rank (in the chain's order) has in row b the *slot* j * rows + b, for what enters and what leaves.
struct ShardRuns {
  std::int64_t slots;
  SequenceRuns forward;   ///< all pieces; a head piece has its slot as state, others none
  SequenceRuns backward;  ///< all pieces; a head piece has its slot as state, any other tail piece slots + its slot
  SequenceRuns heads;     ///< head pieces, with their slots
  SequenceRuns tails;     ///< tail pieces, with their slots
  std::vector<std::int64_t> tail_states;      ///< of each slot, the tail piece's state in `backward`, or -1
  std::vector<SegmentEnd> begins;             ///< of each slot: where states enter, and gradients leave
  std::vector<SegmentEnd> ends;               ///< of each slot: where states leave, and gradients enter
  std::vector<std::int64_t> document_begins;  ///< of each slot: first token of the head piece's document

  ShardRuns(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents);

 private:
  struct Tables;
  ShardRuns(Tables&& tables, std::int64_t rows, std::int64_t length);
};

}  // namespace krait::impl
