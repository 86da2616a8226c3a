// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace krait::test {

/// Records what Kokkos tells a tool while it exists: kernels with the instance they run on, regions, allocations,
/// fences and copies. One recorder at a time; a MemoryMeter may live around it, not begin or end inside.
class CallbackRecorder {
 public:
  struct Event {
    std::string label;
    std::uint32_t device = 0;  ///< kernels and fences: Kokkos::Tools::Experimental::device_id of the instance
  };

  CallbackRecorder();
  ~CallbackRecorder();
  CallbackRecorder(const CallbackRecorder&) = delete;
  CallbackRecorder& operator=(const CallbackRecorder&) = delete;
  CallbackRecorder(CallbackRecorder&&) = delete;
  CallbackRecorder& operator=(CallbackRecorder&&) = delete;

  [[nodiscard]] const std::vector<Event>& kernels() const;
  [[nodiscard]] const std::vector<Event>& fences() const;
  [[nodiscard]] const std::vector<std::string>& regions() const;
  [[nodiscard]] const std::vector<std::string>& allocations() const;
  /// Labels of the destinations of deep copies.
  [[nodiscard]] const std::vector<std::string>& copies() const;
  /// Labels of kernels, regions and allocations that do not start with "krait::".
  [[nodiscard]] std::vector<std::string> foreign_labels() const;
};

}  // namespace krait::test
