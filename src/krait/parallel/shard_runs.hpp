// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Documents as a rank sees them that holds some segments of each row.

#include <Kokkos_Core.hpp>
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

/// What a piece has of its document.
struct DocumentPart {
  std::int64_t document = -1;  ///< as DocumentMap numbers them; -1: there is no piece
  std::int64_t before = 0;     ///< tokens of the document before the piece
  std::int64_t tokens = 0;     ///< in the piece
  std::int64_t behind = 0;     ///< behind the piece

  [[nodiscard]] KOKKOS_FUNCTION bool begins() const { return document >= 0 && before == 0; }
  [[nodiscard]] KOKKOS_FUNCTION bool ends() const { return document >= 0 && behind == 0; }
};

/// Which pieces have a state.
enum class PieceStates {
  heads,  ///< head pieces: what a forward needs
  open,   ///< those whose document goes on in another segment: head pieces and tail pieces
  all,    ///< every one, for documents that begin or end with states
};

/// The *pieces* of a rank: its segments cut where documents begin and end, as runs of local positions. The piece whose
/// document began before the segment is its *head piece*; the one whose document goes on behind it its *tail piece*.
/// Both may be the same. When all pieces have states, rank 0 also has an empty piece of each empty document.
///
/// Segment j of the rank (in the chain's order) has in row b the *slot* j * rows + b, for what enters and what leaves.
/// The slot is also the state of its head piece. The states of other pieces have the numbers from `slots` on.
struct ShardRuns {
  std::int64_t slots;
  SequenceRuns pieces;                    ///< all of them, with their states or none
  SequenceRuns heads;                     ///< head pieces, with their states
  SequenceRuns tails;                     ///< tail pieces, with their states
  std::vector<std::int64_t> head_slots;   ///< of each of `heads`
  std::vector<std::int64_t> tail_slots;   ///< of each of `tails`
  std::vector<DocumentPart> parts;        ///< of each state
  std::vector<std::int64_t> tail_states;  ///< of each slot, the tail piece's state, or -1
  std::vector<SegmentEnd> begins;         ///< of each slot: where states enter, and gradients leave
  std::vector<SegmentEnd> ends;           ///< of each slot: where states leave, and gradients enter

  ShardRuns(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents, PieceStates which);

 private:
  struct Tables;
  ShardRuns(Tables&& tables, std::int64_t rows, std::int64_t length);
};

}  // namespace krait::impl
