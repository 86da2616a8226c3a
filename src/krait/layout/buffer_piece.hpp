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

/// Where pieces [begin, end) go instead of to the buffer: what would be its element i is element i + shift there.
template <class T>
struct OtherBuffer {
  T* data = nullptr;
  std::int64_t shift = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// Consecutive columns of a tensor that are the sum of `sources` places in a buffer, from `first_source` of a list on.
struct SumPiece {
  std::int64_t column = 0;
  std::int64_t count = 0;
  std::int64_t first_source = 0;
  std::int64_t sources = 0;
};

/// One of them: the columns of the q-th token row at offset + q * stride.
struct SumSource {
  std::int64_t offset = 0;
  std::int64_t stride = 0;
};

}  // namespace krait::impl
