// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/segment_chain.hpp>

#include <algorithm>

namespace krait::impl {

SegmentChain::SegmentChain(const SequenceLayout& layout) {
  for (int rank = 0; rank < layout.ranks(); ++rank)
    for (const Stretch& stretch : layout.stretches(rank))
      if (stretch.count > 0)
        segments_.push_back({.token = stretch.token, .local = stretch.local, .count = stretch.count, .owner = rank});
  std::sort(segments_.begin(), segments_.end(), [](const Segment& a, const Segment& b) { return a.token < b.token; });
  for (const Segment& segment : segments_) owners_.push_back(segment.owner);
}

std::vector<std::int64_t> SegmentChain::of(int rank) const {
  std::vector<std::int64_t> numbers;
  for (std::size_t s = 0; s < owners_.size(); ++s)
    if (owners_[s] == rank) numbers.push_back(static_cast<std::int64_t>(s));
  return numbers;
}

}  // namespace krait::impl
