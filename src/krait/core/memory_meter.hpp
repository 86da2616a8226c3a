// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>

namespace krait {

/// Counts the bytes of live Kokkos allocations in this process, of all memory spaces, and their peak, while it exists.
/// It listens to Kokkos's own allocation events and passes them on to a tool that was loaded before. Views that exist
/// when the meter starts are not counted; one meter at a time.
class MemoryMeter {
 public:
  /// \throws Error when another meter is active
  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;
  MemoryMeter(MemoryMeter&&) = delete;
  MemoryMeter& operator=(MemoryMeter&&) = delete;

  /// Bytes allocated since the start and not yet freed.
  [[nodiscard]] std::size_t live_bytes() const;
  /// Largest value of live_bytes() since the start or the last reset_peak().
  [[nodiscard]] std::size_t peak_bytes() const;
  /// Number of allocations since the start.
  [[nodiscard]] std::size_t allocations() const;
  /// Starts a new peak from what is live now.
  void reset_peak();
};

}  // namespace krait
