// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Messages between two ranks. Buffers are contiguous Views of rank 1, in any memory space; the elements are moved as
/// bytes. Everything is ordered after the work that is already enqueued on `exec`.

#include <krait/comm/launch.hpp>

namespace krait::comm {

/// Sends all elements to rank `dest`, which receives the same number of elements with the same tag.
/// \param tag  0 to 16383; messages of equal tag arrive in the order in which they were sent
/// \throws ConfigError for a rank or tag that does not exist
template <class Exec, class SendView>
[[nodiscard]] Request send(const Exec& exec, const Communicator& comm, const SendView& send, int dest, int tag = 0) {
  KRAIT_COMM_CHECK_VIEW("krait::comm::send", SendView);
  constexpr auto operation = CommOperation::send;
  const impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView>);
  impl::require_peer(state, operation, "dest", dest);
  impl::require_tag(operation, tag);
  impl::require_contiguous(operation, "send", send);
  return impl::start(exec, comm, operation, tag, send, {{dest, 0, impl::byte_length(send)}}, impl::NoRecvView(), {});
}

/// Receives all elements from rank `source`. A message of another size is an error of the request.
template <class Exec, class RecvView>
[[nodiscard]] Request recv(const Exec& exec, const Communicator& comm, const RecvView& recv, int source, int tag = 0) {
  KRAIT_COMM_CHECK_RECV_VIEW("krait::comm::recv", RecvView);
  constexpr auto operation = CommOperation::recv;
  const impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<RecvView>);
  impl::require_peer(state, operation, "source", source);
  impl::require_tag(operation, tag);
  impl::require_contiguous(operation, "recv", recv);
  return impl::start(exec, comm, operation, tag, impl::NoView(), {}, recv, {{source, 0, impl::byte_length(recv)}});
}

/// Around the ring: sends to rank + distance and receives from rank - distance, modulo the size. All ranks take part.
/// The number of elements may differ from rank to rank as long as neighbours agree.
///
///     distance 1        before   [a]  [b]  [c]  [d]
///                       after    [d]  [a]  [b]  [c]
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request shift(const Exec& exec, const Communicator& comm, const SendView& send, const RecvView& recv,
                            int distance) {
  KRAIT_COMM_CHECK_VIEWS("krait::comm::shift", SendView, RecvView);
  constexpr auto operation = CommOperation::shift;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_buffers(operation, send, recv);
  const int size = state.place.size;
  const int step = (distance % size + size) % size;
  const int dest = (state.place.rank + step) % size;
  const int source = (state.place.rank - step + size) % size;
  if (step == 0) {
    impl::require_extent(operation, "recv", impl::length(recv), impl::length(send), "a rank sends to itself");
  }
  return impl::start(exec, comm, operation, state.next_tag(), send, {{dest, 0, impl::byte_length(send)}}, recv,
                     {{source, 0, impl::byte_length(recv)}});
}

}  // namespace krait::comm
