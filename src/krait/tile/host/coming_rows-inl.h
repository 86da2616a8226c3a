// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Asks for what comes. With a header of Highway, so not one that has to compile without it.

#include <hwy/base.h>
#include <hwy/cache_control.h>
#include <algorithm>

#include <krait/tile/coming_rows.hpp>

namespace krait::tile::host {

/// The share of each that belongs to part [from, to) of `whole` parts of the work. Not inlined: its callers need all
/// registers.
HWY_NOINLINE inline void ask_for(const Coming& coming, int from, int to, int whole) {
  for (int i = 0; i < coming.count; ++i) {
    const ComingRows& rows = coming.rows[i];
    const double share = rows.tokens / static_cast<double>(whole);
    const int last = std::min(static_cast<int>(to * share), rows.tokens);
    for (int t = static_cast<int>(from * share); t < last; ++t) {
      for (int byte = 0; byte < rows.bytes; byte += 64) hwy::Prefetch(rows.first + t * rows.pitch + byte);
    }
  }
}

}  // namespace krait::tile::host
