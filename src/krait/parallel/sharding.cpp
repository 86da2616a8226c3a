// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/sharding.hpp>

#include <algorithm>

#include <krait/core/error.hpp>
#include <krait/parallel/segment_chain.hpp>

namespace krait {
namespace {

const char* name_of(SequenceLayout::Kind kind) {
  switch (kind) {
    case SequenceLayout::Kind::contiguous:
      return "contiguous";
    case SequenceLayout::Kind::zigzag:
      return "zigzag";
    case SequenceLayout::Kind::zigzag_docs:
      return "zigzag_docs";
    default:
      return "explicit_tokens";
  }
}

void require_length(std::int64_t length) {
  KRAIT_REQUIRE(LayoutError, length >= 0, "krait::Sharding: a length is ", length, ", expected 0 or more");
}

/// Numbers of ranks that are given for ranges of ranks and read for each rank.
class PerRank {
 public:
  explicit PerRank(std::int64_t ranks) : changes_(static_cast<std::size_t>(ranks) + 1) {}
  void add(std::int64_t begin, std::int64_t end, std::int64_t value) {
    if (begin >= end) return;
    changes_[static_cast<std::size_t>(begin)] += value;
    changes_[static_cast<std::size_t>(end)] -= value;
  }
  [[nodiscard]] std::vector<std::int64_t> values() const {
    std::vector<std::int64_t> result(changes_.size() - 1);
    std::int64_t value = 0;
    for (std::size_t r = 0; r < result.size(); ++r) result[r] = value += changes_[r];
    return result;
  }

 private:
  std::vector<std::int64_t> changes_;
};

}  // namespace

Sharding::Sharding(const char* kind, int ranks) : kind_(kind) {
  KRAIT_REQUIRE(ConfigError, ranks >= 1, "krait::Sharding: ranks is ", ranks, ", expected 1 or more");
  tokens_.resize(static_cast<std::size_t>(ranks));
  segments_of_.resize(static_cast<std::size_t>(ranks));
}

void Sharding::append(int owner, std::int64_t tokens, bool merge) {
  if (tokens == 0) return;
  length_ += tokens;
  tokens_[static_cast<std::size_t>(owner)] += tokens;
  if (merge && !links_.empty() && links_.back().owner == owner) {
    links_.back().tokens += tokens;
    return;
  }
  links_.push_back({owner, tokens});
  ++segments_of_[static_cast<std::size_t>(owner)];
  ++segments_;
}

/// Chunks of one sequence, in the order of their tokens: the first are one token longer when the length does not
/// divide.
void Sharding::append_sequence(std::int64_t length, std::int64_t chunks) {
  require_length(length);
  for (std::int64_t j = 0; j < std::min(chunks, length); ++j) {
    append(static_cast<int>(j < ranks() ? j : chunks - 1 - j), length / chunks + (j < length % chunks ? 1 : 0), true);
  }
}

Sharding Sharding::contiguous(int ranks, std::int64_t length) {
  Sharding sharding("contiguous", ranks);
  sharding.append_sequence(length, ranks);
  return sharding;
}

Sharding Sharding::zigzag(int ranks, std::int64_t length) {
  Sharding sharding("zigzag", ranks);
  sharding.append_sequence(length, 2 * std::int64_t{ranks});
  return sharding;
}

Sharding Sharding::zigzag_docs(int ranks, const std::vector<std::int64_t>& document_lengths) {
  Sharding counted("zigzag_docs", ranks);
  counted.count_documents(document_lengths);
  if (counted.segments() > most_links) return counted;
  Sharding sharding("zigzag_docs", ranks);
  for (const std::int64_t length : document_lengths) sharding.append_sequence(length, 2 * std::int64_t{ranks});
  return sharding;
}

/// What append_sequence() comes to for every document, in O(documents + ranks). Of a document with n chunks that are
/// not empty, ranks [0, n) and [2P - n, P) have a segment each, but both chunks of rank P - 1 are one. Where the last
/// chunk is rank 0's, the first one of the next document continues it.
void Sharding::count_documents(const std::vector<std::int64_t>& lengths) {
  const std::int64_t P = ranks();
  PerRank segments(P);
  PerRank tokens(P);
  bool ends_on_first_rank = false;
  for (const std::int64_t length : lengths) {
    require_length(length);
    if (length == 0) continue;
    length_ += length;
    const auto add_chunks = [P](PerRank& sums, std::int64_t chunks) {
      sums.add(0, std::min(chunks, P), 1);
      sums.add(2 * P - std::max(chunks, P), P, 1);
    };
    const std::int64_t chunks = std::min(length, 2 * P);
    add_chunks(segments, chunks);
    if (chunks > P) segments.add(P - 1, P, -1);
    if (ends_on_first_rank) segments.add(0, 1, -1);
    ends_on_first_rank = chunks == 1 || chunks == 2 * P;
    tokens.add(0, P, 2 * (length / (2 * P)));
    add_chunks(tokens, length % (2 * P));
  }
  tokens_ = tokens.values();
  segments_of_ = segments.values();
  for (const std::int64_t count : segments_of_) segments_ += count;
}

Sharding Sharding::of(const SequenceLayout& layout) {
  Sharding sharding(name_of(layout.kind()), layout.ranks());
  const impl::SegmentChain chain(layout);
  for (const impl::Segment& segment : chain.segments()) sharding.append(segment.owner, segment.count, false);
  return sharding;
}

std::int64_t Sharding::most_tokens() const { return *std::max_element(tokens_.begin(), tokens_.end()); }

std::int64_t Sharding::most_segments() const { return *std::max_element(segments_of_.begin(), segments_of_.end()); }

}  // namespace krait
