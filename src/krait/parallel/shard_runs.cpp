// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/shard_runs.hpp>

#include <algorithm>
#include <utility>

namespace krait::impl {

struct ShardRuns::Tables {
  std::vector<Run> forward, backward, heads, tails;
  std::vector<SegmentEnd> begins, ends;
  std::vector<std::int64_t> document_begins, tail_states;

  Tables(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents) {
    const SequenceRuns& runs = documents.runs();
    const std::vector<std::int64_t> own = chain.of(layout.rank());
    const auto slots = static_cast<std::int64_t>(own.size()) * runs.rows();
    for (const std::int64_t number : own)
      for (std::int64_t row = 0; row < runs.rows(); ++row)
        cut(chain.segments()[static_cast<std::size_t>(number)], row, runs, slots);
    // The chain's order is that of tokens; runs are in the order of local positions.
    for (std::vector<Run>* pieces : {&forward, &backward, &heads, &tails})
      std::sort(pieces->begin(), pieces->end(),
                [](const Run& a, const Run& b) { return std::pair(a.row, a.begin) < std::pair(b.row, b.begin); });
  }

 private:
  void cut(const Segment& segment, std::int64_t row, const SequenceRuns& runs, std::int64_t slots) {
    const auto slot = static_cast<std::int64_t>(begins.size());
    SegmentEnd at_begin = SegmentEnd::closed;
    SegmentEnd at_end = SegmentEnd::closed;
    std::int64_t document_begin = 0;
    const auto first = runs.host().begin() + runs.host_offsets()[static_cast<std::size_t>(row)];
    const auto last = runs.host().begin() + runs.host_offsets()[static_cast<std::size_t>(row) + 1];
    auto run = std::partition_point(first, last, [&](const Run& r) { return r.end <= segment.token; });
    for (; run != last && run->begin < segment.end(); ++run) {
      if (run->begin == run->end) continue;
      const std::int64_t shift = segment.local - segment.token;
      const bool head = run->begin < segment.token;
      const bool tail = run->end > segment.end();
      Run piece{row, std::max(run->begin, segment.token) + shift, std::min(run->end, segment.end()) + shift, slot};
      if (head) {
        at_begin = tail ? SegmentEnd::carries : SegmentEnd::opens;
        document_begin = run->begin;
        heads.push_back(piece);
      }
      if (tail) {
        at_end = head ? SegmentEnd::carries : SegmentEnd::opens;
        tails.push_back(piece);
      }
      piece.state = head ? slot : -1;
      forward.push_back(piece);
      if (tail && !head) piece.state = slots + slot;
      backward.push_back(piece);
    }
    tail_states.push_back(at_end == SegmentEnd::closed ? -1 : at_end == SegmentEnd::carries ? slot : slots + slot);
    begins.push_back(at_begin);
    ends.push_back(at_end);
    document_begins.push_back(document_begin);
  }
};

ShardRuns::ShardRuns(Tables&& tables, std::int64_t rows, std::int64_t length)
    : slots(static_cast<std::int64_t>(tables.begins.size())),
      forward(rows, length, std::move(tables.forward), slots),
      backward(rows, length, std::move(tables.backward), 2 * slots),
      heads(rows, length, std::move(tables.heads), slots),
      tails(rows, length, std::move(tables.tails), slots),
      tail_states(std::move(tables.tail_states)),
      begins(std::move(tables.begins)),
      ends(std::move(tables.ends)),
      document_begins(std::move(tables.document_begins)) {}

ShardRuns::ShardRuns(const SegmentChain& chain, const SequenceLayout& layout, const DocumentMap& documents)
    : ShardRuns(Tables(chain, layout, documents), documents.rows(), layout.local_length()) {}

}  // namespace krait::impl
