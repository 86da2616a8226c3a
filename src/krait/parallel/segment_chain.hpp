// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// A row as a chain of segments: which rank holds which link.

#include <cstdint>
#include <vector>

#include <krait/layout/sequence_layout.hpp>

namespace krait::impl {

/// Consecutive tokens [token, token + count) at consecutive local positions [local, local + count) of rank `owner`.
struct Segment {
  std::int64_t token = 0;
  std::int64_t local = 0;
  std::int64_t count = 0;
  int owner = 0;

  [[nodiscard]] std::int64_t end() const { return token + count; }
};

/// The stretches of all ranks, in the order of their tokens. Every rank has the same chain.
///
///     contiguous   0 1 2 3              zigzag   0 1 2 3 2 1 0        owners with 4 ranks; what touches is one segment
class SegmentChain {
 public:
  explicit SegmentChain(const SequenceLayout& layout);

  [[nodiscard]] const std::vector<Segment>& segments() const { return segments_; }
  /// The owner of each segment.
  [[nodiscard]] const std::vector<int>& owners() const { return owners_; }
  /// Numbers of a rank's segments in the chain, ascending.
  [[nodiscard]] std::vector<std::int64_t> of(int rank) const;

 private:
  std::vector<Segment> segments_;
  std::vector<int> owners_;
};

}  // namespace krait::impl
