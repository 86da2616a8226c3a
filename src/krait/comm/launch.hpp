// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The steps that every operation shares: static checks, run-time checks, lists of parts, start.

#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/comm/exchange.hpp>
#include <krait/comm/request.hpp>
#include <krait/core/error.hpp>

namespace krait {

/// Elements for, or from, each rank. Offsets are the sums of the counts before.
using Counts = std::span<const std::int64_t>;

namespace impl {

template <class View>
inline constexpr bool is_flat_view = false;
template <class DataType, class... Properties>
inline constexpr bool is_flat_view<Kokkos::View<DataType, Properties...>> =
    Kokkos::View<DataType, Properties...>::rank() == 1;

template <class View>
using element_t = std::remove_cv_t<typename View::value_type>;

template <class View>
inline constexpr bool is_writable = !std::is_const_v<typename View::value_type>;

template <class... Views>
inline constexpr Reach reach = reach_of_spaces<typename Views::memory_space...>;

/// \param function  literal, e.g. "krait::comm::send"
#define KRAIT_COMM_CHECK_VIEW(function, View)                                                                 \
  static_assert(::krait::impl::is_flat_view<View>, function ": the buffer must be a Kokkos::View of rank 1"); \
  static_assert(std::is_trivially_copyable_v<::krait::impl::element_t<View>>,                                 \
                function ": the elements must be trivially copyable")

#define KRAIT_COMM_CHECK_RECV_VIEW(function, View) \
  KRAIT_COMM_CHECK_VIEW(function, View);           \
  static_assert(::krait::impl::is_writable<View>, function ": the receive buffer must not be const")

#define KRAIT_COMM_CHECK_VIEWS(function, SendView, RecvView)                                            \
  KRAIT_COMM_CHECK_VIEW(function, SendView);                                                            \
  KRAIT_COMM_CHECK_RECV_VIEW(function, RecvView);                                                       \
  static_assert(std::is_same_v<::krait::impl::element_t<SendView>, ::krait::impl::element_t<RecvView>>, \
                function ": send and receive buffer must have the same scalar")

/// The profiling region of an operation, named after the path that it takes.
class CommRegion {
 public:
  CommRegion(const CommState& state, CommOperation operation, Reach reach)
      : region_(comm_label(state, operation, reach)) {}

 private:
  Kokkos::Profiling::ScopedRegion region_;
};

/// Throws the failure of a request that nobody waited for.
void throw_lost_failure(CommState& state);

/// Right before the first message: counts the call.
void begin(CommState& state, CommOperation operation);

// Run-time checks; they throw ConfigError or ShapeError with the values.
void require_peer(const CommState& state, CommOperation operation, const char* argument, int peer);
void require_tag(CommOperation operation, int tag);
void require_extent(CommOperation operation, const char* argument, std::int64_t given, std::int64_t expected,
                    const char* why);
void require_divisible(const CommState& state, CommOperation operation, const char* argument, std::int64_t extent);
void require_counts(const CommState& state, CommOperation operation, const char* argument, Counts counts,
                    std::int64_t extent);
void require_apart(CommOperation operation, const void* send, std::int64_t send_bytes, const void* recv,
                   std::int64_t recv_bytes);
void require_contiguous(CommOperation operation, const char* argument, std::int64_t extent, std::int64_t stride);

template <class View>
std::int64_t length(const View& view) {
  return static_cast<std::int64_t>(view.extent(0));
}

template <class View>
std::int64_t byte_length(const View& view) {
  return length(view) * static_cast<std::int64_t>(sizeof(element_t<View>));
}

template <class View>
void require_contiguous(CommOperation operation, const char* argument, const View& view) {
  require_contiguous(operation, argument, length(view), static_cast<std::int64_t>(view.stride(0)));
}

template <class SendView, class RecvView>
void require_buffers(CommOperation operation, const SendView& send, const RecvView& recv) {
  require_contiguous(operation, "send", send);
  require_contiguous(operation, "recv", recv);
  require_apart(operation, send.data(), byte_length(send), recv.data(), byte_length(recv));
}

/// One part per rank, one behind the other.
Parts blocks(Counts counts, std::int64_t element_bytes);
/// Equal parts of `bytes` for every rank, one behind the other.
Parts equal_blocks(const CommState& state, std::int64_t bytes);
/// The same stretch for every rank.
Parts same_block(const CommState& state, std::int64_t offset, std::int64_t bytes);

/// The end that is not there.
using NoView = Kokkos::View<const std::byte*, Kokkos::HostSpace>;
using NoRecvView = Kokkos::View<std::byte*, Kokkos::HostSpace>;

/// Starts an operation of one stage.
template <class Exec, class SendView, class RecvView>
Request start(const Exec& exec, const Communicator& comm, CommOperation operation, int tag, const SendView& send,
              Parts sends, const RecvView& recv, Parts receives) {
  CommState& state = *comm.state();
  begin(state, operation);
  auto exchange = std::make_unique<Exchange>(state, operation, tag, make_endpoints(exec, send, recv), std::move(sends),
                                             std::move(receives));
  return Request(std::make_unique<RequestState>(comm.state(), std::move(exchange)));
}

}  // namespace impl
}  // namespace krait
