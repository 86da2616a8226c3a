// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Buffers of a communicator: staging memory and the gathered parts of reductions. They only grow, so a program that
/// repeats itself soon allocates nothing.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <krait/core/device_table.hpp>

namespace krait::impl {

/// Memory through which Views travel that MPI cannot read: pinned where the backend has it.
using StagingSpace = Kokkos::SharedHostPinnedSpace;

template <class Space>
using ByteView = Kokkos::View<std::byte*, Space>;

/// The free buffers of one memory space.
template <class Space>
class BufferPool {
 public:
  /// The smallest free buffer that is large enough; otherwise the largest one is replaced by a larger.
  ByteView<Space> take(std::int64_t bytes) {
    const auto wanted = static_cast<std::size_t>(bytes);
    std::size_t best = free_.size();
    for (std::size_t i = 0; i < free_.size(); ++i) {
      if (best == free_.size() || better(free_[i].size(), free_[best].size(), wanted)) best = i;
    }
    ByteView<Space> buffer;
    if (best < free_.size()) {
      buffer = std::move(free_[best]);
      free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(best));
    }
    if (buffer.size() < wanted) {
      buffer = ByteView<Space>();
      buffer = ByteView<Space>(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::comm::buffer"), wanted);
    }
    return buffer;
  }

  void give_back(ByteView<Space> buffer) { free_.push_back(std::move(buffer)); }

 private:
  static bool better(std::size_t candidate, std::size_t best, std::size_t wanted) {
    if ((candidate >= wanted) != (best >= wanted)) return candidate >= wanted;
    return candidate >= wanted ? candidate < best : candidate > best;
  }

  std::vector<ByteView<Space>> free_;
};

/// A buffer on loan: goes back to its pool at the end, when no kernel and no message uses it any more.
template <class Space>
class Lease {
 public:
  Lease(std::shared_ptr<BufferPool<Space>> pool, std::int64_t bytes)
      : pool_(std::move(pool)), buffer_(pool_->take(bytes)) {}
  Lease(Lease&&) noexcept = default;
  Lease& operator=(Lease&&) = delete;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() {
    if (pool_) pool_->give_back(std::move(buffer_));
  }

  [[nodiscard]] const ByteView<Space>& view() const { return buffer_; }
  [[nodiscard]] std::byte* data() const { return buffer_.data(); }

 private:
  std::shared_ptr<BufferPool<Space>> pool_;
  ByteView<Space> buffer_;
};

/// The pools of all memory spaces of one communicator. Kokkos::finalize empties them, so that the communicator itself
/// may live on.
class BufferPools {
 public:
  /// \param queue  the device queue whose work uses the buffer: it gets buffers only that were its own before, so that
  ///               work which still uses them comes earlier; null where nobody uses a buffer that was given back
  template <class Space>
  Lease<Space> lease(std::int64_t bytes, void* queue = nullptr) {
    if (!pools_) {
      pools_ = std::make_shared<std::unique_ptr<PerQueue>>(std::make_unique<PerQueue>());
      Kokkos::push_finalize_hook([weak = std::weak_ptr(pools_)] {
        if (const auto pools = weak.lock()) pools->reset();
      });
    }
    PerSpace& spaces = (**pools_)[queue];
    return Lease<Space>(spaces.get<Space>([] { return std::make_shared<BufferPool<Space>>(); }), bytes);
  }

 private:
  using PerQueue = std::map<void*, PerSpace>;
  std::shared_ptr<std::unique_ptr<PerQueue>> pools_;
};

}  // namespace krait::impl
