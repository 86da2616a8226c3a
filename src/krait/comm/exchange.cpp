// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/exchange.hpp>

#include <algorithm>
#include <utility>

namespace krait::impl {
namespace {

const Part* find(const Parts& parts, int peer) {
  const auto found = std::find_if(parts.begin(), parts.end(), [peer](const Part& part) { return part.peer == peer; });
  return found == parts.end() ? nullptr : &*found;
}

/// Calls action(part) for each part, beginning with the peer after this rank, so that the ranks do not all begin with
/// rank 0.
template <class Action>
void for_each_from(const Parts& parts, int rank, Action&& action) {
  const auto first = std::find_if(parts.begin(), parts.end(), [rank](const Part& part) { return part.peer > rank; });
  std::for_each(first, parts.end(), action);
  std::for_each(parts.begin(), first, action);
}

void count(OperationCounters& counters, const Parts& sends, const Parts& receives, int rank) {
  for (const Part& part : sends) {
    if (part.peer == rank) continue;
    ++counters.messages_sent;
    counters.bytes_sent += part.bytes;
  }
  for (const Part& part : receives) {
    if (part.peer == rank) continue;
    ++counters.messages_received;
    counters.bytes_received += part.bytes;
  }
}

}  // namespace

bool is_queued(const CommState& state, CommOperation operation, Reach reach) {
  const bool has_users_tag = operation == CommOperation::send || operation == CommOperation::recv;
  return state.queue && !state.force_host_buffer && !has_users_tag && state.queue->takes(reach);
}

bool is_staged(const CommState& state, Reach reach) {
  return state.force_host_buffer ||
         (reach != Reach::host && !(state.gpu_aware_mpi && state.backend->may_read_device_memory()));
}

std::string comm_label(const CommState& state, CommOperation operation, Reach reach) {
  std::string label = std::string("krait::comm::") + name(operation) + '[';
  if (is_queued(state, operation, reach)) return label + state.queue->name() + ']';
  label += state.backend->name();
  if (state.backend->may_read_device_memory()) label += is_staged(state, reach) ? ",staged" : ",direct";
  return label + ']';
}

Exchange::Exchange(CommState& state, CommOperation operation, int tag, std::shared_ptr<const Endpoints> ends,
                   Parts sends, Parts receives)
    : operation_(operation), ends_(std::move(ends)) {
  const auto is_empty = [](const Part& part) { return part.bytes == 0; };
  std::erase_if(sends, is_empty);
  std::erase_if(receives, is_empty);
  const int rank = state.place.rank;
  count(state.counters[operation], sends, receives, rank);

  const Part* own_send = find(sends, rank);
  const Part* own_recv = find(receives, rank);
  const bool has_own = own_send != nullptr && own_recv != nullptr;
  const Part from = has_own ? *own_send : Part{};
  const Part to = has_own ? *own_recv : Part{};
  if (has_own) {
    const auto is_own = [rank](const Part& part) { return part.peer == rank; };
    std::erase_if(sends, is_own);
    std::erase_if(receives, is_own);
  }

  if (is_queued(state, operation, ends_->reach())) {
    start_queued(state, sends, receives);
  } else {
    messages_ = state.backend->open(tag, state.limits.message_bytes);
    if (is_staged(state, ends_->reach())) {
      start_staged(state, sends, receives);
    } else if (!sends.empty() || !receives.empty()) {
      start_direct(state, sends, receives);
    }
  }
  // Last, so that it runs while the messages travel.
  if (has_own && ends_->send_data() + from.offset != ends_->recv_data() + to.offset) {
    ends_->copy_across(to.offset, from.offset, from.bytes);
    enqueued_ = true;
  }
}

void Exchange::start_queued(CommState& state, const Parts& sends, const Parts& receives) {
  auto messages = state.queue->open();
  queued_ = messages.get();
  messages_ = std::move(messages);
  if (sends.empty() && receives.empty()) return;
  if (ends_->queue() == nullptr) ends_->fence("krait::comm: data ready before send");
  post_receives(receives, ends_->recv_data(), state.place.rank);
  post_sends(sends, ends_->send_data(), state.place.rank);
  queued_->start(ends_->queue());
}

void Exchange::start_direct(CommState& state, const Parts& sends, const Parts& receives) {
  // Receives as well: kernels that were enqueued before may still use the memory that messages will overwrite.
  ends_->fence("krait::comm: data ready before send");
  post_receives(receives, ends_->recv_data(), state.place.rank);
  post_sends(sends, ends_->send_data(), state.place.rank);
}

void Exchange::start_staged(CommState& state, const Parts& sends, const Parts& receives) {
  const auto span = [](const std::vector<Stretch>& list) {
    return list.back().offset + list.back().bytes - list.front().offset;
  };
  // A buffer mirrors the end from its first to its last message; the pointer is moved so that offsets stay as they are.
  const int rank = state.place.rank;
  if (!receives.empty()) {
    copies_back_ = stretches(receives);
    recv_buffer_.emplace(state.buffers.lease<StagingSpace>(span(copies_back_)));
    post_receives(receives, recv_buffer_->data() - copies_back_.front().offset, rank);
  }
  if (!sends.empty()) {
    const std::vector<Stretch> copies = stretches(sends);
    send_buffer_.emplace(state.buffers.lease<StagingSpace>(span(copies)));
    std::byte* const buffer = send_buffer_->data() - copies.front().offset;
    for (const Stretch& copy : copies) ends_->copy_out(buffer + copy.offset, copy.offset, copy.bytes);
    ends_->fence("krait::comm: data ready before send");
    post_sends(sends, buffer, rank);
  }
}

bool Exchange::test() {
  if (finished_) return true;
  if (queued_ != nullptr) {
    queued_->precede(ends_->queue());
    enqueued_ = true;
  } else if (!messages_->test()) {
    return false;
  }
  for (const Stretch& copy : copies_back_) {
    ends_->copy_in(copy.offset, recv_buffer_->data() + (copy.offset - copies_back_.front().offset), copy.bytes);
    enqueued_ = true;
  }
  finished_ = true;
  return true;
}

std::vector<Exchange::Stretch> Exchange::stretches(const Parts& parts) {
  std::vector<Stretch> result;
  for (const Part& part : parts) {
    if (result.empty() || part.offset > result.back().offset + result.back().bytes) {
      result.push_back({part.offset, part.bytes});
    } else {
      result.back().bytes = std::max(result.back().bytes, part.offset + part.bytes - result.back().offset);
    }
  }
  return result;
}

void Exchange::post_receives(const Parts& parts, std::byte* data, int rank) {
  for_each_from(parts, rank, [&](const Part& part) { messages_->receive(part.peer, data + part.offset, part.bytes); });
}

void Exchange::post_sends(const Parts& parts, const std::byte* data, int rank) {
  for_each_from(parts, rank, [&](const Part& part) { messages_->send(part.peer, data + part.offset, part.bytes); });
}

}  // namespace krait::impl
