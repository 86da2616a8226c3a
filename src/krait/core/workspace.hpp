// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Workspaces. A plan first lays out what it needs with `WorkspaceLayout` (the query), then holds one block of that
/// size in a `Workspace`; after the first call nothing is allocated.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace krait {

/// Places blocks one behind the other, each at a multiple of 128 bytes.
class WorkspaceLayout {
 public:
  /// Reserves `count` elements of V and returns their offset in bytes.
  template <class V>
  std::size_t add(std::int64_t count) {
    const std::size_t offset = bytes_;
    const std::size_t size = static_cast<std::size_t>(count) * sizeof(V);
    bytes_ += (size + alignment - 1) / alignment * alignment;
    return offset;
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t alignment = 128;
  std::size_t bytes_ = 0;
};

/// One block of device memory that grows when asked for more and is otherwise kept. Not copyable.
template <class Exec = Kokkos::DefaultExecutionSpace>
class Workspace {
  using Block = Kokkos::View<std::byte*, typename Exec::memory_space>;

 public:
  explicit Workspace(std::string label) : label_(std::move(label)) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  /// The other one is as good as new: without memory, and with its label.
  // NOLINTNEXTLINE(performance-move-constructor-init): the other keeps its label
  Workspace(Workspace&& other) noexcept : label_(other.label_), block_(std::exchange(other.block_, Block())) {}
  Workspace& operator=(Workspace&& other) noexcept {
    block_ = std::exchange(other.block_, Block());
    label_ = other.label_;
    return *this;
  }
  ~Workspace() = default;

  /// Makes at least `bytes` available. The contents are lost when the block grows. Growing waits for `exec`, so that
  /// no kernel still reads the old block.
  void reserve(const Exec& exec, std::size_t bytes) {
    if (bytes <= block_.size()) return;
    if (block_.size() != 0) exec.fence("krait::workspace: block is being replaced");
    block_ = Block();
    block_ = Block(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, label_), bytes);
  }

  template <class V>
  [[nodiscard]] V* at(std::size_t offset) const {
    return reinterpret_cast<V*>(block_.data() + offset);
  }
  [[nodiscard]] std::size_t bytes() const { return block_.size(); }

 private:
  std::string label_;
  Block block_;
};

}  // namespace krait
