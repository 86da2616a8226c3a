// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Element-wise reductions over ranks. Elements are combined in ascending order of ranks by Krait's own kernels, so
/// the bits do not depend on anybody's choice of algorithm, and are equal on all ranks and in every run.

#include <concepts>
#include <cstdint>

#include <krait/comm/launch.hpp>

namespace krait {

/// How elements are combined. A NaN on any rank gives a NaN.
enum class Reduction { sum, max, min };

/// What can be reduced. Not bfloat16 and float16: convert to float, reduce, convert back.
template <class T>
concept Reducible = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, std::int32_t> ||
                    std::same_as<T, std::int64_t> || std::same_as<T, std::uint32_t> || std::same_as<T, std::uint64_t>;

namespace impl {

/// result[i] = gathered[0 * count + i] op gathered[1 * count + i] op ...
template <class T, class Exec>
void reduce_in_order(const Exec& exec, const T* gathered, int ranks, std::int64_t count, T* result,
                     Reduction reduction);

template <class Exec, class View>
inline constexpr bool is_accessible = Kokkos::SpaceAccessibility<Exec, typename View::memory_space>::accessible;

#define KRAIT_COMM_CHECK_REDUCTION(function, Exec, SendView, RecvView)                                        \
  KRAIT_COMM_CHECK_VIEWS(function, SendView, RecvView);                                                       \
  static_assert(::krait::Reducible<::krait::impl::element_t<SendView>>, function                              \
                ": only float, double and integers of 32 or 64 bits are reduced; convert bfloat16 and "       \
                "float16 to float first");                                                                    \
  static_assert(::krait::impl::is_accessible<Exec, SendView> && ::krait::impl::is_accessible<Exec, RecvView>, \
                function ": the buffers must be accessible from the execution space")

/// Room for `count` elements of every rank, where Exec can combine them.
template <class T, class Exec>
class Gathered {
 public:
  using View = Kokkos::View<T*, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

  Gathered(const Exec& exec, CommState& state, std::int64_t count)
      : lease_(state.buffers.lease<typename Exec::memory_space>(
            elements(state, count) * static_cast<std::int64_t>(sizeof(T)), queue_of(exec))),
        view_(reinterpret_cast<T*>(lease_.data()), static_cast<std::size_t>(elements(state, count))) {}

  [[nodiscard]] const View& view() const { return view_; }

 private:
  static std::int64_t elements(const CommState& state, std::int64_t count) { return count * state.place.size; }
  Lease<typename Exec::memory_space> lease_;
  View view_;
};

/// All blocks of all ranks, then one kernel: the fewest messages in a row.
template <class Exec, class SendView, class RecvView>
Request all_reduce_gathered(const Exec& exec, const Communicator& comm, const SendView& send, const RecvView& recv,
                            Reduction reduction) {
  using T = element_t<SendView>;
  CommState& state = *comm.state();
  const std::int64_t count = length(send);
  const auto gathered = std::make_shared<Gathered<T, Exec>>(exec, state, count);
  auto exchange = std::make_unique<Exchange>(
      state, CommOperation::all_reduce, state.next_tag(), make_endpoints(exec, send, gathered->view()),
      same_block(state, 0, byte_length(send)), equal_blocks(state, byte_length(send)));
  auto combine = [exec, gathered, ranks = state.place.size, count, recv, reduction]() -> std::unique_ptr<Exchange> {
    reduce_in_order<T, Exec>(exec, gathered->view().data(), ranks, count, recv.data(), reduction);
    return nullptr;
  };
  return Request(
      std::make_unique<RequestState>(comm.state(), std::move(exchange), std::vector<RequestState::Stage>{combine}));
}

/// Each rank combines one block, then all blocks go to all: the fewest bytes.
template <class Exec, class SendView, class RecvView>
Request all_reduce_in_blocks(const Exec& exec, const Communicator& comm, const SendView& send, const RecvView& recv,
                             Reduction reduction) {
  using T = element_t<SendView>;
  CommState& state = *comm.state();
  const auto ranks = static_cast<std::size_t>(state.place.size);
  const auto rank = static_cast<std::size_t>(state.place.rank);
  const std::int64_t count = length(send);
  std::vector<std::int64_t> counts(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    const auto size = static_cast<std::int64_t>(ranks);
    const auto wide = static_cast<std::int64_t>(r);
    counts[r] = count / size + (wide < count % size ? 1 : 0);
  }
  const Parts all = blocks(counts, sizeof(T));
  const Part own = all[rank];
  const auto gathered = std::make_shared<Gathered<T, Exec>>(exec, state, counts[rank]);
  auto exchange =
      std::make_unique<Exchange>(state, CommOperation::all_reduce, state.next_tag(),
                                 make_endpoints(exec, send, gathered->view()), all, equal_blocks(state, own.bytes));
  // The tag is drawn now, as on all other ranks, not when this rank gets there.
  auto combine_and_gather = [exec, shared = comm.state(), gathered, all, own, recv, reduction,
                             tag = state.next_tag()]() -> std::unique_ptr<Exchange> {
    CommState& here = *shared;
    reduce_in_order<T, Exec>(exec, gathered->view().data(), here.place.size,
                             own.bytes / static_cast<std::int64_t>(sizeof(T)),
                             recv.data() + own.offset / static_cast<std::int64_t>(sizeof(T)), reduction);
    return std::make_unique<Exchange>(here, CommOperation::all_reduce, tag, make_endpoints(exec, recv, recv),
                                      same_block(here, own.offset, own.bytes), all);
  };
  return Request(std::make_unique<RequestState>(comm.state(), std::move(exchange),
                                                std::vector<RequestState::Stage>{combine_and_gather}));
}

}  // namespace impl

namespace comm {

/// recv[i] = sum, maximum or minimum of all ranks' send[i], on every rank. recv may be send itself.
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request all_reduce(const Exec& exec, const Communicator& comm, const SendView& send, const RecvView& recv,
                                 Reduction reduction) {
  KRAIT_COMM_CHECK_REDUCTION("krait::comm::all_reduce", Exec, SendView, RecvView);
  constexpr auto operation = CommOperation::all_reduce;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_extent(operation, "recv", impl::length(recv), impl::length(send), "as many as send");
  impl::require_contiguous(operation, "send", send);
  impl::require_contiguous(operation, "recv", recv);
  if (static_cast<const void*>(send.data()) != static_cast<const void*>(recv.data())) {
    impl::require_buffers(operation, send, recv);
  }
  impl::begin(state, operation);
  const bool few = impl::byte_length(send) * state.place.size <= state.limits.all_reduce_gathered_bytes;
  return few ? impl::all_reduce_gathered(exec, comm, send, recv, reduction)
             : impl::all_reduce_in_blocks(exec, comm, send, recv, reduction);
}

/// Rank r gets block r of the element-wise sum, maximum or minimum. send holds a block of recv's size for each rank.
///
///     rank 0  [a0 a1 a2]           [a0+b0+c0]
///     rank 1  [b0 b1 b2]    ->     [a1+b1+c1]
///     rank 2  [c0 c1 c2]           [a2+b2+c2]
template <class Exec, class SendView, class RecvView>
[[nodiscard]] Request reduce_scatter(const Exec& exec, const Communicator& comm, const SendView& send,
                                     const RecvView& recv, Reduction reduction) {
  KRAIT_COMM_CHECK_REDUCTION("krait::comm::reduce_scatter", Exec, SendView, RecvView);
  using T = impl::element_t<SendView>;
  constexpr auto operation = CommOperation::reduce_scatter;
  impl::CommState& state = *comm.state();
  const impl::CommRegion region(state, operation, impl::reach<SendView, RecvView>);
  impl::require_extent(operation, "send", impl::length(send), impl::length(recv) * state.place.size,
                       "recv's elements times the ranks");
  impl::require_buffers(operation, send, recv);
  impl::begin(state, operation);
  const std::int64_t count = impl::length(recv);
  const auto gathered = std::make_shared<impl::Gathered<T, Exec>>(exec, state, count);
  const impl::Parts parts = impl::equal_blocks(state, impl::byte_length(recv));
  auto exchange = std::make_unique<impl::Exchange>(state, operation, state.next_tag(),
                                                   impl::make_endpoints(exec, send, gathered->view()), parts, parts);
  auto combine = [exec, gathered, ranks = state.place.size, count, recv,
                  reduction]() -> std::unique_ptr<impl::Exchange> {
    impl::reduce_in_order<T, Exec>(exec, gathered->view().data(), ranks, count, recv.data(), reduction);
    return nullptr;
  };
  return Request(std::make_unique<impl::RequestState>(comm.state(), std::move(exchange),
                                                      std::vector<impl::RequestState::Stage>{combine}));
}

}  // namespace comm
}  // namespace krait
