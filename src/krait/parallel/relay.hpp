// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace krait::impl {

/// Memory that is handed on part by part: as soon as the old content of part k is dead, its new content is written,
/// while the old contents of the parts behind it are still needed. Old contents lie at the end, new ones at the
/// beginning, both in order:
///
///     at first     |      | old 0 | old 1 | old 2 |
///     then         | new 0 |      | old 1 | old 2 |
///     then         | new 0 | new 1 |      | old 2 |
///
/// That takes no more than the larger of the two unless the first parts grow while later ones shrink.
struct Relay {
  std::vector<std::int64_t> old_begin, new_begin;  ///< of every part
  std::int64_t size = 0;

  /// \param old_sizes, new_sizes  of every part
  Relay(const std::vector<std::int64_t>& old_sizes, const std::vector<std::int64_t>& new_sizes) {
    std::int64_t left = std::accumulate(old_sizes.begin(), old_sizes.end(), std::int64_t{0});
    std::int64_t written = 0;
    size = left;
    for (std::size_t k = 0; k < old_sizes.size(); ++k) {
      new_begin.push_back(written);
      left -= old_sizes[k];
      written += new_sizes[k];
      size = std::max(size, written + left);
    }
    std::int64_t end = size;
    old_begin.resize(old_sizes.size());
    for (std::size_t k = old_sizes.size(); k-- > 0;) old_begin[k] = end -= old_sizes[k];
  }
};

}  // namespace krait::impl
