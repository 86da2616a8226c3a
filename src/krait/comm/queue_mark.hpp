// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <memory>

namespace krait::impl {

/// A place in a device queue: other queues, and the host, can come after it. Without a device there are no queues, and
/// every place has been reached.
class QueueMark {
 public:
  /// Nowhere: reached() is true.
  QueueMark() = default;
  /// Behind what `queue` holds now. A second call moves the mark.
  /// \throws CommError when CUDA refuses, here and below
  void record(void* queue);
  /// What is enqueued on `queue` from now on comes after the mark.
  void precede(void* queue) const;
  /// Whether the device has got here. Does not block.
  [[nodiscard]] bool reached() const;

 private:
  std::shared_ptr<void> event_;
};

}  // namespace krait::impl
