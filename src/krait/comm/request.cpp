// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/request.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include <krait/comm/exchange.hpp>
#include <krait/comm/queue_mark.hpp>
#include <krait/core/error.hpp>

namespace krait {
namespace impl {

RequestState::RequestState(std::shared_ptr<CommState> comm, std::unique_ptr<Exchange> first, std::vector<Stage> next,
                           StageMemory memory)
    : comm_(std::move(comm)),
      next_(std::move(next)),
      memory_(memory),
      exceptions_at_start_(std::uncaught_exceptions()) {
  exchanges_.push_back(std::move(first));
  if (next_.empty()) return;
  comm_->progress->add(this);
  comm_->progress->advance_all();
}

RequestState::~RequestState() { comm_->progress->remove(this); }

template <class Action>
void RequestState::guarded(Action&& action) noexcept {
  try {
    action();
  } catch (...) {
    failure_ = std::current_exception();
    finished_ = true;
  }
}

bool RequestState::advance() noexcept {
  guarded([this] {
    while (!finished_ && exchanges_.back()->test()) {
      std::unique_ptr<Exchange> started;
      while (!started && stages_done_ < next_.size()) started = next_[stages_done_++]();
      if (started) {
        exchanges_.push_back(std::move(started));
      } else {
        finished_ = true;
      }
    }
  });
  return finished_;
}

bool RequestState::test() noexcept {
  // What has failed is not asked again: its messages may be in any state.
  if (failure_) return true;
  bool arrived = false;
  guarded([&] { arrived = std::ranges::all_of(exchanges_, [](const auto& exchange) { return exchange->arrived(); }); });
  return failure_ || (arrived && advance());
}

void RequestState::block() noexcept {
  guarded([this] {
    for (const auto& exchange : exchanges_) exchange->wait();
  });
}

void RequestState::wait(const Reader& reader) {
  comm_->progress->advance_all();
  const bool is_ordered = queued() && (reader.queue != nullptr || reader.is_instance_of(exchanges_.front()->ends()));
  if (is_ordered) {
    advance();
  } else if (!test()) {
    const WaitTimer timer(*comm_, exchanges_.front()->operation());
    comm_->progress->run(this, [this] { return test(); }, [this] { block(); });
  }
  if (failure_) std::rethrow_exception(failure_);
}

void RequestState::settle(const Reader& reader) const {
  // Kernels of later stages and copies back may read buffers that now return to their pool. Where exchanges are queued,
  // such a buffer belongs to the instance and is used again after these kernels.
  bool fence = !next_.empty() && memory_ == StageMemory::pool && !queued();
  bool enqueued = !next_.empty();
  for (const auto& exchange : exchanges_) {
    fence = fence || exchange->reads_buffer();
    enqueued = enqueued || exchange->enqueued();
  }
  const Endpoints& ends = exchanges_.front()->ends();
  if (!fence && (!enqueued || reader.is_instance_of(ends))) return;
  if (!fence && ends.queue() != nullptr && reader.queue != nullptr) {
    QueueMark mark;
    mark.record(ends.queue());
    mark.precede(reader.queue);
  } else {
    ends.fence("krait::comm: received data complete");
  }
}

bool RequestState::wait_quietly() noexcept {
  try {
    if (std::uncaught_exceptions() > exceptions_at_start_) {
      using Clock = std::chrono::steady_clock;
      const auto end = Clock::now() + std::chrono::duration<double>(comm_->limits.unwinding_seconds);
      while (!test()) {
        if (Clock::now() > end) {
          comm_->lost_failure = std::make_exception_ptr(
              CommError("krait::Request: given up while an exception was thrown; its messages were not complete"));
          return abandon();
        }
        std::this_thread::yield();
      }
    }
    wait(Reader{});
    settle(Reader{});
    return true;
  } catch (...) {
    comm_->lost_failure = std::current_exception();
    return abandon();
  }
}

bool RequestState::abandon() noexcept {
  comm_->progress->remove(this);
  finished_ = true;
  bool free = true;
  for (const auto& exchange : exchanges_) free = exchange->abandon() && free;
  return free;
}

/// Freeing memory that messages still use would be worse than losing it.
static void lose(std::unique_ptr<RequestState>& state) noexcept {
  [[maybe_unused]] const RequestState* const lost = state.release();
}

}  // namespace impl

Request::Request() noexcept = default;

Request::Request(std::unique_ptr<impl::RequestState> state) noexcept : state_(std::move(state)) {}

Request::Request(Request&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}

Request& Request::operator=(Request&& other) noexcept {
  if (this != &other) {
    finish();
    state_ = std::exchange(other.state_, nullptr);
  }
  return *this;
}

Request::~Request() { finish(); }

void Request::finish() noexcept {
  if (!state_) return;
  if (!state_->wait_quietly()) impl::lose(state_);
  state_.reset();
}

void Request::wait() {
  if (state_) end({});
}

bool Request::test() {
  if (!state_) return true;
  if (!state_->test()) return false;
  end({});
  return true;
}

void Request::wait_for(const std::type_info& space, const void* exec, void* queue) {
  if (state_) end({&space, exec, queue});
}

void Request::end(const impl::Reader& reader) {
  std::unique_ptr<impl::RequestState> state = std::exchange(state_, nullptr);
  try {
    state->wait(reader);
  } catch (...) {
    if (!state->abandon()) impl::lose(state);
    throw;
  }
  state->settle(reader);
}

void wait_all(std::span<Request> requests) {
  std::exception_ptr failure;
  for (Request& request : requests) {
    try {
      request.wait();
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace krait
