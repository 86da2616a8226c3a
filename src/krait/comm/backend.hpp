// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a family (`self/`, `mpi/`, ...) provides: numbered messages of raw bytes between ranks. Everything else -
/// collectives, staging, counting, reductions - is written once, above it.

#include <cstddef>
#include <cstdint>
#include <memory>

#include <krait/comm/place.hpp>

namespace krait::impl {

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

/// The lower half of the tags belongs to send and recv, the upper half to collectives, which take the next one each
/// time. MPI guarantees tags up to 32767.
inline constexpr int user_tags = 16384;
inline constexpr int max_tag = 2 * user_tags - 1;

}  // namespace krait::impl
