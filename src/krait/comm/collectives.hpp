// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Operations of all ranks of a group that move data unchanged. Buffers are contiguous Views of rank 1, in any memory
/// space; the elements are moved as bytes. Everything is ordered after the work that is already enqueued on `exec`.
/// Send and receive buffer are separate. Empty messages are not sent.

#include <krait/comm/launch.hpp>

namespace krait::comm {

/// Every rank sends an equal block to every rank.
///
///     rank 0  [a0 a1 a2]           [a0 b0 c0]
///     rank 1  [b0 b1 b2]    ->     [a1 b1 c1]
///     rank 2  [c0 c1 c2]           [a2 b2 c2]
///
/// \throws ShapeError when a buffer does not divide by the ranks, or the buffers differ in size
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request all_to_all(const Exec& exec, const Communicator& comm, const SendView& send,
                                 const RecvView& recv) {
  KRAIT_COMM_CHECK_VIEWS("krait::comm::all_to_all", SendView, RecvView);
  constexpr auto operation = CommOperation::all_to_all;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_divisible(state, operation, "send", impl::length(send));
  impl::require_extent(operation, "recv", impl::length(recv), impl::length(send), "as many as send");
  impl::require_buffers(operation, send, recv);
  const impl::Parts parts = impl::equal_blocks(state, impl::byte_length(send) / state.place.size);
  return impl::start(exec, comm, operation, state.next_tag(), send, parts, recv, parts);
}

/// What becomes of the block that a rank sends to itself.
enum class OwnBlock {
  copied,   ///< from send to recv
  in_place  ///< nothing: recv has it already, that of send is not read
};

/// Every rank sends a block of its own size to every rank; the blocks lie one behind the other, in order of ranks.
/// \param send_counts  elements for each rank; they add up to the size of send
/// \param recv_counts  elements from each rank, what that rank sends; they add up to the size of recv
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request all_to_all_v(const Exec& exec, const Communicator& comm, const SendView& send, Counts send_counts,
                                   const RecvView& recv, Counts recv_counts, OwnBlock own = OwnBlock::copied) {
  KRAIT_COMM_CHECK_VIEWS("krait::comm::all_to_all_v", SendView, RecvView);
  constexpr auto operation = CommOperation::all_to_all_v;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_counts(state, operation, "send_counts", send_counts, impl::length(send));
  impl::require_counts(state, operation, "recv_counts", recv_counts, impl::length(recv));
  const auto rank = static_cast<std::size_t>(state.place.rank);
  impl::require_extent(operation, "the block of recv for the own rank", recv_counts[rank], send_counts[rank],
                       "as many as in send");
  impl::require_buffers(operation, send, recv);
  constexpr auto element = static_cast<std::int64_t>(sizeof(impl::element_t<SendView>));
  impl::Parts sends = impl::blocks(send_counts, element);
  impl::Parts receives = impl::blocks(recv_counts, element);
  if (own == OwnBlock::in_place) {
    sends[rank].bytes = 0;
    receives[rank].bytes = 0;
  }
  return impl::start(exec, comm, operation, state.next_tag(), send, std::move(sends), recv, std::move(receives));
}

/// Every rank gets the equal blocks of all ranks.
///
///     rank 0  [a]           [a b c]
///     rank 1  [b]    ->     [a b c]
///     rank 2  [c]           [a b c]
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request all_gather(const Exec& exec, const Communicator& comm, const SendView& send,
                                 const RecvView& recv) {
  KRAIT_COMM_CHECK_VIEWS("krait::comm::all_gather", SendView, RecvView);
  constexpr auto operation = CommOperation::all_gather;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_extent(operation, "recv", impl::length(recv), impl::length(send) * state.place.size,
                       "send's elements times the ranks");
  impl::require_buffers(operation, send, recv);
  const std::int64_t block = impl::byte_length(send);
  return impl::start(exec, comm, operation, state.next_tag(), send, impl::same_block(state, 0, block), recv,
                     impl::equal_blocks(state, block));
}

/// Every rank gets the blocks of all ranks, which may differ in size.
/// \param recv_counts  elements from each rank, equal on all ranks; they add up to the size of recv
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request all_gather_v(const Exec& exec, const Communicator& comm, const SendView& send,
                                   const RecvView& recv, Counts recv_counts) {
  KRAIT_COMM_CHECK_VIEWS("krait::comm::all_gather_v", SendView, RecvView);
  constexpr auto operation = CommOperation::all_gather_v;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_counts(state, operation, "recv_counts", recv_counts, impl::length(recv));
  impl::require_extent(operation, "send", impl::length(send), recv_counts[static_cast<std::size_t>(state.place.rank)],
                       "recv_counts of the own rank");
  impl::require_buffers(operation, send, recv);
  constexpr auto element = static_cast<std::int64_t>(sizeof(impl::element_t<SendView>));
  return impl::start(exec, comm, operation, state.next_tag(), send, impl::same_block(state, 0, impl::byte_length(send)),
                     recv, impl::blocks(recv_counts, element));
}

/// Rank `root`'s elements go to every rank, in place.
template <class Exec, class View>
[[nodiscard]] Request broadcast(const Exec& exec, const Communicator& comm, const View& view, int root) {
  KRAIT_COMM_CHECK_RECV_VIEW("krait::comm::broadcast", View);
  constexpr auto operation = CommOperation::broadcast;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<View>);
  impl::require_peer(state, operation, "root", root);
  impl::require_contiguous(operation, "view", view);
  const std::int64_t bytes = impl::byte_length(view);
  impl::Parts sends;
  impl::Parts receives;
  if (state.place.rank == root) {
    sends = impl::same_block(state, 0, bytes);
    std::erase_if(sends, [root](const impl::Part& part) { return part.peer == root; });
  } else {
    receives = {{root, 0, bytes}};
  }
  return impl::start(exec, comm, operation, state.next_tag(), view, std::move(sends), view, std::move(receives));
}

}  // namespace krait::comm
