// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/shard_runs.hpp>

#include <algorithm>
#include <tuple>
#include <utility>

namespace krait::impl {
namespace {

/// A piece at an end of a segment.
struct EndPiece {
  Run run;
  std::int64_t slot;
};

/// The chain's order is that of tokens; runs are in the order of local positions.
void sort(std::vector<Run>& runs) {
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
    return std::tuple(a.row, a.begin, a.end) < std::tuple(b.row, b.begin, b.end);
  });
}

void sort(std::vector<EndPiece>& pieces) {
  std::sort(pieces.begin(), pieces.end(), [](const EndPiece& a, const EndPiece& b) {
    return std::pair(a.run.row, a.run.begin) < std::pair(b.run.row, b.run.begin);
  });
}

std::vector<Run> runs_of(const std::vector<EndPiece>& pieces) {
  std::vector<Run> runs;
  for (const EndPiece& piece : pieces) runs.push_back(piece.run);
  return runs;
}

std::vector<std::int64_t> slots_of(const std::vector<EndPiece>& pieces) {
  std::vector<std::int64_t> slots;
  for (const EndPiece& piece : pieces) slots.push_back(piece.slot);
  return slots;
}

}  // namespace

struct ShardRuns::Tables {
  std::vector<Run> pieces;
  std::vector<EndPiece> heads, tails;
  std::vector<DocumentPart> parts;
  std::vector<std::int64_t> tail_states;
  std::vector<SegmentEnd> begins, ends;

  Tables(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents, PieceStates which)
      : which_(which) {
    const SequenceRuns& runs = documents.runs();
    const std::vector<std::int64_t> own = chain.of(layout.rank());
    parts.resize(own.size() * static_cast<std::size_t>(runs.rows()));  // those of head pieces; others follow
    if (which_ == PieceStates::all && layout.rank() == 0)
      for (const Run& run : runs.host())
        if (run.begin == run.end) pieces.push_back({run.row, 0, 0, new_state({.document = run.state})});
    for (const std::int64_t number : own)
      for (std::int64_t row = 0; row < runs.rows(); ++row)
        cut(chain.segments()[static_cast<std::size_t>(number)], row, runs);
    sort(pieces);
    sort(heads);
    sort(tails);
  }

 private:
  void cut(const Segment& segment, std::int64_t row, const SequenceRuns& runs) {
    const auto slot = static_cast<std::int64_t>(begins.size());
    SegmentEnd at_begin = SegmentEnd::closed;
    SegmentEnd at_end = SegmentEnd::closed;
    std::int64_t tail_state = Run::no_state;
    const auto first = runs.host().begin() + runs.host_offsets()[static_cast<std::size_t>(row)];
    const auto last = runs.host().begin() + runs.host_offsets()[static_cast<std::size_t>(row) + 1];
    auto run = std::partition_point(first, last, [&](const Run& r) { return r.end <= segment.token; });
    for (; run != last && run->begin < segment.end(); ++run) {
      if (run->begin == run->end) continue;
      const bool head = run->begin < segment.token;
      const bool tail = run->end > segment.end();
      const std::int64_t begin = std::max(run->begin, segment.token);
      const std::int64_t end = std::min(run->end, segment.end());
      const DocumentPart part{
          .document = run->state, .before = begin - run->begin, .tokens = end - begin, .behind = run->end - end};
      const std::int64_t shift = segment.local - segment.token;
      Run piece{row, begin + shift, end + shift, Run::no_state};
      if (head) {
        piece.state = slot;
        parts[static_cast<std::size_t>(slot)] = part;
      } else if (which_ == PieceStates::all || (tail && which_ == PieceStates::open)) {
        piece.state = new_state(part);
      }
      pieces.push_back(piece);
      if (head) {
        at_begin = tail ? SegmentEnd::carries : SegmentEnd::opens;
        heads.push_back({piece, slot});
      }
      if (tail) {
        at_end = head ? SegmentEnd::carries : SegmentEnd::opens;
        tails.push_back({piece, slot});
        tail_state = piece.state;
      }
    }
    tail_states.push_back(tail_state);
    begins.push_back(at_begin);
    ends.push_back(at_end);
  }

  std::int64_t new_state(const DocumentPart& part) {
    parts.push_back(part);
    return static_cast<std::int64_t>(parts.size()) - 1;
  }

  PieceStates which_;
};

ShardRuns::ShardRuns(Tables&& tables, std::int64_t rows, std::int64_t length)
    : slots(static_cast<std::int64_t>(tables.begins.size())),
      pieces(rows, length, std::move(tables.pieces), static_cast<std::int64_t>(tables.parts.size())),
      heads(rows, length, runs_of(tables.heads), pieces.states()),
      tails(rows, length, runs_of(tables.tails), pieces.states()),
      head_slots(slots_of(tables.heads)),
      tail_slots(slots_of(tables.tails)),
      parts(std::move(tables.parts)),
      tail_states(std::move(tables.tail_states)),
      begins(std::move(tables.begins)),
      ends(std::move(tables.ends)) {}

ShardRuns::ShardRuns(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents,
                     PieceStates which)
    : ShardRuns(Tables(chain, layout, documents, which), documents.rows(), layout.local_length()) {}

}  // namespace krait::impl
