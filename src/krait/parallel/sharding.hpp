// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Who holds which part of a sequence, as far as volumes depend on it.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <krait/layout/sequence_layout.hpp>

namespace krait {

/// How a sequence is cut into the segments of its ranks: stretches of a SequenceLayout, listed in the order of their
/// tokens.
///
///     row zigzag, 3 ranks     tokens    0 1   2 3   4 5 6 7   8 9   10 11
///                             owner      0     1       2       1      0
///
/// For questions about layouts that are not there: it belongs to no rank and has no tables of tokens, and 4096 ranks
/// with 2^30 tokens take less than a millisecond. Lengths are cut as under Policy::even. Of documents that are cut into
/// more than most_links segments only the counts are known.
class Sharding {
 public:
  struct Link {
    int owner = 0;
    std::int64_t tokens = 0;

    friend bool operator==(const Link&, const Link&) = default;
  };
  static constexpr std::int64_t most_links = 1 << 15;

  /// \throws ConfigError when ranks is not positive, LayoutError when a length is negative
  static Sharding contiguous(int ranks, std::int64_t length);
  static Sharding zigzag(int ranks, std::int64_t length);
  static Sharding zigzag_docs(int ranks, const std::vector<std::int64_t>& document_lengths);
  /// Of any layout, also an explicit one.
  static Sharding of(const SequenceLayout& layout);

  /// "contiguous", "zigzag", "zigzag_docs" or "explicit_tokens".
  [[nodiscard]] const char* kind() const { return kind_; }
  [[nodiscard]] int ranks() const { return static_cast<int>(tokens_.size()); }
  /// Tokens of all ranks, and of one.
  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] std::int64_t tokens(int rank) const { return tokens_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::int64_t most_tokens() const;
  /// Segments of all ranks, and of one.
  [[nodiscard]] std::int64_t segments() const { return segments_; }
  [[nodiscard]] std::int64_t segments(int rank) const { return segments_of_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::int64_t most_segments() const;

  /// The segments one by one; empty where only the counts are known.
  [[nodiscard]] const std::vector<Link>& links() const { return links_; }
  [[nodiscard]] bool has_links() const { return static_cast<std::int64_t>(links_.size()) == segments_; }

 private:
  Sharding(const char* kind, int ranks);
  void append(int owner, std::int64_t tokens, bool merge);
  void append_sequence(std::int64_t length, std::int64_t chunks);
  void count_documents(const std::vector<std::int64_t>& lengths);

  const char* kind_;
  std::int64_t length_ = 0;
  std::int64_t segments_ = 0;
  std::vector<std::int64_t> tokens_;
  std::vector<std::int64_t> segments_of_;
  std::vector<Link> links_;
};

}  // namespace krait
