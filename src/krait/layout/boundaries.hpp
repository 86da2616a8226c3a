// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The check of cu_seqlens that layouts and document maps share.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <krait/core/error.hpp>

namespace krait::impl {

/// \throws LayoutError unless there are at least 2 boundaries, from 0 on, not decreasing
inline void require_boundaries(const std::string& function, const std::vector<std::int64_t>& cu_seqlens) {
  KRAIT_REQUIRE(LayoutError, cu_seqlens.size() >= 2, function, ": cu_seqlens has ", cu_seqlens.size(),
                " entries, expected at least 2 (the beginning and the end of the first document)");
  KRAIT_REQUIRE(LayoutError, cu_seqlens.front() == 0, function, ": cu_seqlens begins with ", cu_seqlens.front(),
                ", expected 0");
  for (std::size_t d = 1; d < cu_seqlens.size(); ++d) {
    KRAIT_REQUIRE(LayoutError, cu_seqlens[d] >= cu_seqlens[d - 1], function, ": cu_seqlens decreases from ",
                  cu_seqlens[d - 1], " to ", cu_seqlens[d], " at entry ", d);
  }
}

}  // namespace krait::impl
