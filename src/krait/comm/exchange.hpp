// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The one engine under all operations: sends stretches of one View to ranks and receives stretches of another from
/// ranks. The own part is a copy on the execution space; memory that MPI cannot read goes through host buffers.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <typeinfo>
#include <vector>

#include <krait/comm/endpoints.hpp>
#include <krait/comm/state.hpp>

namespace krait::impl {

/// A stretch of an end that goes to, or comes from, one rank; in bytes.
struct Part {
  int peer = 0;
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
};
/// In ascending order of offsets, at most one part per peer.
using Parts = std::vector<Part>;

/// Whether this operation is ordered on a device queue. A user's tags are for numbered messages only.
bool is_queued(const CommState& state, CommOperation operation, Reach reach);

/// Whether an operation that is not queued goes through host buffers.
bool is_staged(const CommState& state, Reach reach);

/// "krait::comm::all_to_all_v[mpi,staged]", "krait::comm::all_to_all_v[nccl]"
std::string comm_label(const CommState& state, CommOperation operation, Reach reach);

/// Messages of one stage, started by the constructor. What this rank sends to itself and receives in the same exchange
/// is a copy.
class Exchange {
 public:
  Exchange(CommState& state, CommOperation operation, int tag, std::shared_ptr<const Endpoints> ends, Parts sends,
           Parts receives);

  /// True when what comes next may be enqueued: all has arrived, and the copies back are enqueued; or it is queued, and
  /// the instance comes after it from now on.
  bool test();
  /// True when all messages are done. Does not block.
  bool arrived() { return messages_->test(); }
  /// Blocks until the messages are done; arrived() and test() are true afterwards.
  void wait() { messages_->wait(); }
  bool abandon() noexcept { return messages_->abandon(); }

  [[nodiscard]] CommOperation operation() const { return operation_; }
  [[nodiscard]] const Endpoints& ends() const { return *ends_; }
  [[nodiscard]] bool queued() const { return queued_ != nullptr; }
  /// Whether a copy was enqueued, so that only the instance knows when all is there.
  [[nodiscard]] bool enqueued() const { return enqueued_; }
  /// Whether the instance may still be reading a host buffer.
  [[nodiscard]] bool reads_buffer() const { return recv_buffer_.has_value(); }

 private:
  /// A stretch of an end without gaps.
  struct Stretch {
    std::int64_t offset = 0;
    std::int64_t bytes = 0;
  };
  static std::vector<Stretch> stretches(const Parts& parts);
  void start_queued(CommState& state, const Parts& sends, const Parts& receives);
  void start_direct(CommState& state, const Parts& sends, const Parts& receives);
  void start_staged(CommState& state, const Parts& sends, const Parts& receives);
  void post_receives(const Parts& parts, std::byte* data, int rank);
  void post_sends(const Parts& parts, const std::byte* data, int rank);

  CommOperation operation_;
  std::shared_ptr<const Endpoints> ends_;
  std::vector<Stretch> copies_back_;
  std::optional<Lease<StagingSpace>> send_buffer_;
  std::optional<Lease<StagingSpace>> recv_buffer_;
  std::unique_ptr<Messages> messages_;  ///< ends before the memory it uses
  QueuedMessages* queued_ = nullptr;    ///< the same, where a device orders them
  bool enqueued_ = false;
  bool finished_ = false;
};

/// Who will use what was received.
struct Reader {
  const std::type_info* space = nullptr;  ///< type of an instance; null: anybody
  const void* instance = nullptr;         ///< its address
  void* queue = nullptr;                  ///< its device queue, or null

  [[nodiscard]] bool is_instance_of(const Endpoints& ends) const {
    return space != nullptr && ends.is_instance(*space, instance);
  }
};

/// Whose memory the kernels of later stages use: buffers that return to a pool with the request, or memory that the
/// caller keeps.
enum class StageMemory { pool, caller };

/// What a Request owns: one exchange after the other. Where exchanges are queued, all of them are enqueued at once: the
/// order of messages is then that in which requests begin, which is the same on all ranks.
class RequestState {
 public:
  /// Runs when the exchange before it has finished; may return the next one, or nothing.
  using Stage = std::function<std::unique_ptr<Exchange>()>;

  RequestState(std::shared_ptr<CommState> comm, std::unique_ptr<Exchange> first, std::vector<Stage> next = {},
               StageMemory memory = StageMemory::pool);
  RequestState(const RequestState&) = delete;
  RequestState& operator=(const RequestState&) = delete;
  ~RequestState();

  /// Goes on as far as possible without blocking. True when finished, well or badly: nothing is left to enqueue.
  bool advance() noexcept;
  [[nodiscard]] bool finished() const { return finished_; }
  /// As advance(), true only when all messages are done too.
  bool test() noexcept;

  /// Waits until `reader` may go on, and throws what failed. The host does not block for a reader on a device if the
  /// messages are ordered there.
  void wait(const Reader& reader);
  /// After a wait: the fence, or the order between queues, that a reader needs before it uses what was received.
  void settle(const Reader& reader) const;

  /// For destructors: waits, for some time only while an exception unwinds, and keeps a failure in the communicator.
  /// False when memory is still in use.
  bool wait_quietly() noexcept;
  /// Gives up. False when memory is still in use.
  bool abandon() noexcept;

 private:
  [[nodiscard]] bool queued() const { return exchanges_.front()->queued(); }
  void block() noexcept;
  template <class Action>
  void guarded(Action&& action) noexcept;

  std::shared_ptr<CommState> comm_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;  ///< started ones; the last is under way
  std::vector<Stage> next_;
  StageMemory memory_;
  std::size_t stages_done_ = 0;
  std::exception_ptr failure_;
  bool finished_ = false;
  int exceptions_at_start_;
};

}  // namespace krait::impl
