// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a family (`self/`, `mpi/`, `nccl/`) provides: messages of raw bytes between ranks. Everything else -
/// collectives, staging, counting, reductions - is written once, above it.
///
/// Every communicator has a Backend, whose messages are numbered and waited for by the host. It may have a QueueBackend
/// besides, whose messages are work on a device, ordered with other work there, so that the host never waits.

#include <cstddef>
#include <cstdint>
#include <memory>

#include <krait/comm/place.hpp>

namespace krait::impl {

/// Who can read and write the Views of an operation.
enum class Reach {
  host,    ///< the host all of them
  device,  ///< the host none of them
  mixed
};

/// Raw messages under way. Messages of equal tag between two ranks arrive in the order in which they were started.
/// Receiver and sender know each other's sizes; an empty message is never started.
class Messages {
 public:
  virtual ~Messages() = default;
  virtual void receive(int peer, std::byte* data, std::int64_t bytes) = 0;
  virtual void send(int peer, const std::byte* data, std::int64_t bytes) = 0;
  /// True when all are done. Does not block.
  virtual bool test() = 0;
  /// Blocks until all are done.
  virtual void wait() = 0;
  /// Gives up what can be given up. True when no memory is in use any more.
  virtual bool abandon() noexcept = 0;
};

/// One group of ranks of one family.
class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual Place place() const = 0;
  [[nodiscard]] virtual const char* name() const = 0;
  /// Whether it can be handed memory that the host cannot read, provided that the user says so.
  [[nodiscard]] virtual bool may_read_device_memory() const = 0;
  /// \param tag    0 ... max_tag
  /// \param limit  the most bytes in one piece; larger messages are split, equally on both sides
  [[nodiscard]] virtual std::unique_ptr<Messages> open(int tag, std::int64_t limit) = 0;
  [[nodiscard]] virtual std::unique_ptr<Messages> barrier() = 0;
  [[nodiscard]] virtual std::shared_ptr<Backend> split(int color, int key) = 0;
};

/// Messages that are work on a device. Those of one group start together. They carry no tags: two ranks start the
/// groups that concern them both in the same order.
class QueuedMessages : public Messages {
 public:
  /// Starts all of them, after what `queue` holds now. Called once, after all receive() and send(); not when there are
  /// none.
  /// \param queue  null: the memory is ready, nothing to wait for
  virtual void start(void* queue) = 0;
  /// What is enqueued on `queue` from now on comes after them.
  /// \param queue  null: the host itself comes after them, so it blocks
  virtual void precede(void* queue) = 0;
};

/// One group of ranks of one family that orders messages on device queues.
class QueueBackend {
 public:
  virtual ~QueueBackend() = default;
  [[nodiscard]] virtual const char* name() const = 0;
  /// Whether it moves such Views; equal on all ranks.
  [[nodiscard]] virtual bool takes(Reach reach) const = 0;
  [[nodiscard]] virtual std::unique_ptr<QueuedMessages> open() = 0;
  /// The same family for some of the ranks, which all call it.
  /// \param part  their Backend, without messages under way
  [[nodiscard]] virtual std::shared_ptr<QueueBackend> over(Backend& part) const = 0;
};

/// The lower half of the tags belongs to send and recv, the upper half to collectives, which take the next one each
/// time. MPI guarantees tags up to 32767.
inline constexpr int user_tags = 16384;
inline constexpr int max_tag = 2 * user_tags - 1;

}  // namespace krait::impl
