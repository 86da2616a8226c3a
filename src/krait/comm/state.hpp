// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the copies of a communicator share.

#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include <krait/comm/backend.hpp>
#include <krait/comm/buffer_pool.hpp>
#include <krait/comm/counters.hpp>
#include <krait/core/config.hpp>

namespace krait::impl {

class RequestState;

/// Limits that tests set to small values.
struct CommLimits {
  /// The most bytes in one MPI message: MPI 3 counts in int. A multiple of 128 keeps pieces aligned.
  std::int64_t message_bytes = std::int64_t{std::numeric_limits<int>::max()} / 128 * 128;
  /// all_reduce gathers everything everywhere up to this many gathered bytes, and reduces in blocks above.
  std::int64_t all_reduce_gathered_bytes = std::int64_t{256} * 1024;
  /// How long the destructor of a request waits while an exception unwinds.
  double unwinding_seconds = 10;
};

/// The requests under way of a communicator and of those split from it. A request of several stages starts its next
/// stage only when somebody looks after it; whoever starts one or waits for one looks after all, so that ranks may wait
/// in different orders, and what they do between is not lost for those under way.
class Progress {
 public:
  void add(RequestState* request) { requests_.push_back(request); }
  void remove(const RequestState* request) { std::erase(requests_, request); }

  /// Starts the next stage of every request that can go on. Does not wait.
  void advance_all();

  /// Returns when test() does.
  /// \param block  waits for the messages of the current stage; used when nothing else needs looking after
  /// \param own    the request that is waited for, or null
  template <class Test, class Block>
  void run(const RequestState* own, Test&& test, Block&& block) {
    while (!test()) {
      if (others_need_care(own)) {
        advance_all();
        std::this_thread::yield();
      } else {
        block();
      }
    }
  }

 private:
  [[nodiscard]] bool others_need_care(const RequestState* own) const;

  std::vector<RequestState*> requests_;
};

struct CommState {
  std::shared_ptr<Backend> backend;
  std::shared_ptr<QueueBackend> queue;  ///< or null
  Place place;
  CommCounters counters;
  CommLimits limits;
  bool force_host_buffer = false;
#ifdef KRAIT_ENABLE_GPU_AWARE_MPI
  bool gpu_aware_mpi = true;
#else
  bool gpu_aware_mpi = false;
#endif
  BufferPools buffers;
  std::shared_ptr<Progress> progress = std::make_shared<Progress>();
  /// Number of tags given to collectives so far; equal on all ranks.
  std::uint32_t tags_used = 0;
  /// The failure of a request that nobody waited for; the next operation throws it.
  std::exception_ptr lost_failure;

  /// A tag for a collective operation.
  int next_tag() { return user_tags + static_cast<int>(tags_used++ % user_tags); }
};

/// Counts the time until its end as waiting for an operation.
class WaitTimer {
 public:
  WaitTimer(CommState& state, CommOperation operation) : seconds_(state.counters[operation].seconds_waited) {}
  WaitTimer(const WaitTimer&) = delete;
  WaitTimer& operator=(const WaitTimer&) = delete;
  ~WaitTimer() { seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace krait::impl
