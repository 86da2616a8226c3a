// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>

namespace krait::impl {

/// Consecutive columns of a tensor and where they lie in a buffer: those of the q-th token row at offset + q * stride.
struct BufferPiece {
  std::int64_t column = 0;
  std::int64_t count = 0;
  std::int64_t offset = 0;
  std::int64_t stride = 0;
};

}  // namespace krait::impl
