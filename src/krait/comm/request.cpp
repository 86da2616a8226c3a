// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/request.hpp>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include <krait/comm/exchange.hpp>
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
  if (!next_.empty()) comm_->progress->add(this);
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

void RequestState::block() noexcept {
  guarded([this] { exchanges_.back()->wait(); });
}

void RequestState::wait() {
  if (!advance()) {
    const WaitTimer timer(*comm_, exchanges_.front()->operation());
    comm_->progress->run(this, [this] { return advance(); }, [this] { block(); });
  }
  if (failure_) std::rethrow_exception(failure_);
}

void RequestState::settle(const std::type_info* space, const void* reader) const {
  // Kernels of later stages and copies back may read buffers that now return to their pool.
  bool fence = !next_.empty() && memory_ == StageMemory::pool;
  bool enqueued = !next_.empty();
  for (const auto& exchange : exchanges_) {
    fence = fence || exchange->reads_buffer();
    enqueued = enqueued || exchange->enqueued();
  }
  const Endpoints& ends = exchanges_.front()->ends();
  const bool same_instance = space != nullptr && ends.is_instance(*space, reader);
  if (fence || (enqueued && !same_instance)) ends.fence("krait::comm: received data complete");
}

bool RequestState::wait_quietly() noexcept {
  try {
    if (std::uncaught_exceptions() > exceptions_at_start_) {
      using Clock = std::chrono::steady_clock;
      const auto end = Clock::now() + std::chrono::duration<double>(comm_->limits.unwinding_seconds);
      while (!advance()) {
        if (Clock::now() > end) {
          comm_->lost_failure = std::make_exception_ptr(
              CommError("krait::Request: given up while an exception was thrown; its messages were not complete"));
          return abandon();
        }
        std::this_thread::yield();
      }
    }
    wait();
    settle(nullptr, nullptr);
    return true;
  } catch (...) {
    comm_->lost_failure = std::current_exception();
    return abandon();
  }
}

bool RequestState::abandon() noexcept {
  comm_->progress->remove(this);
  finished_ = true;
  return exchanges_.back()->abandon();
}

/// Freeing memory that MPI still uses would be worse than losing it.
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
  if (state_) end(nullptr, nullptr);
}

bool Request::test() {
  if (!state_) return true;
  if (!state_->advance()) return false;
  end(nullptr, nullptr);
  return true;
}

void Request::wait_for(const std::type_info& space, const void* exec) {
  if (state_) end(&space, exec);
}

void Request::end(const std::type_info* space, const void* reader) {
  std::unique_ptr<impl::RequestState> state = std::exchange(state_, nullptr);
  try {
    state->wait();
  } catch (...) {
    if (!state->abandon()) impl::lose(state);
    throw;
  }
  state->settle(space, reader);
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
