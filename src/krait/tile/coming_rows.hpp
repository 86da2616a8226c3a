// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a thread of a host asks its caller's memory for while it works on the caches. No Kokkos here, for the sources
/// with vector instructions.

#include <cstdint>

namespace krait::tile {

/// Rows of tokens in the caller's memory that will be loaded or stored soon: they are asked for little by little while
/// the state is worked on. All at once, more requests would wait than a core can have under way.
struct ComingRows {
  int tokens;
  int bytes;  ///< of a row
  const char* first;
  std::int64_t pitch;  ///< from one row to the next, in bytes
};

/// All of them.
struct Coming {
  int count = 0;
  ComingRows rows[3];
};

}  // namespace krait::tile
