// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the forms of a state exchange share. Users: state_exchange.cpp and the files of the forms.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <krait/comm/launch.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/segment.hpp>
#include <krait/parallel/state_exchange.hpp>

namespace krait::impl {

/// Checks what a plan is made of.
void require_state_exchange(const char* function, StateExchange form, const std::vector<int>& owners,
                            const Place& place, const StateMapShape& shape);

/// A segment of the chain.
struct ChainLink {
  int owner = 0;
  std::int64_t local = 0;  ///< its number among the owner's segments, in order of tokens
};

/// The chain as one rank sees it, in the order of travel: link 0 is the segment that nothing enters.
struct ChainRoute {
  int rank = 0;
  std::vector<ChainLink> links;
  std::vector<std::int64_t> own;     ///< links of this rank, ascending
  std::vector<std::int64_t> counts;  ///< segments of each rank

  ChainRoute(const std::vector<int>& owners, const Place& place, ChainDirection direction);

  [[nodiscard]] std::int64_t segments() const { return static_cast<std::int64_t>(links.size()); }
  [[nodiscard]] std::int64_t local_segments() const { return static_cast<std::int64_t>(own.size()); }
  [[nodiscard]] const ChainLink& operator[](std::int64_t link) const { return links[static_cast<std::size_t>(link)]; }
  /// Whether the state goes from this link to the next one, and between ranks.
  [[nodiscard]] bool sends_on(std::int64_t link) const {
    return link + 1 < segments() && (*this)[link].owner != (*this)[link + 1].owner;
  }
};

/// What one call works on.
template <class V, class Exec>
struct StateExchangeCall {
  Exec exec;
  std::shared_ptr<CommState> comm;
  int tag = 0;
  const V* maps = nullptr;
  std::byte* workspace = nullptr;

  template <class W = V>
  [[nodiscard]] W* at(std::size_t offset) const {
    return reinterpret_cast<W*>(workspace + offset);
  }
  /// Starts messages of numbers: parts of `send` to ranks, and parts of `recv` from ranks.
  [[nodiscard]] std::unique_ptr<Exchange> start(CommOperation operation, const V* send, std::int64_t send_count,
                                                Parts sends, V* recv, std::int64_t recv_count, Parts receives) const {
    return std::make_unique<Exchange>(*comm, operation, tag,
                                      make_endpoints(exec, make_tensor<const V*, Exec, 1>(send, {send_count}),
                                                     make_tensor<V*, Exec, 1>(recv, {recv_count})),
                                      std::move(sends), std::move(receives));
  }
};

/// One form of the exchange. Requests under way share it.
template <class V, class Exec>
class StateExchangeForm : public std::enable_shared_from_this<StateExchangeForm<V, Exec>> {
 public:
  using Call = StateExchangeCall<V, Exec>;

  StateExchangeForm(ChainRoute route, const StateMapShape& shape) : route_(std::move(route)), shape_(shape) {}
  StateExchangeForm(const StateExchangeForm&) = delete;
  StateExchangeForm& operator=(const StateExchangeForm&) = delete;
  virtual ~StateExchangeForm() = default;

  [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
  [[nodiscard]] virtual CommOperation operation() const = 0;
  /// The first messages, maybe none.
  [[nodiscard]] virtual std::unique_ptr<Exchange> begin(const Call& call) const = 0;
  /// How many steps follow, each when the messages before it have arrived.
  [[nodiscard]] virtual std::int64_t steps() const = 0;
  /// Step 0, 1, ...: kernels, then the messages that follow, or null.
  [[nodiscard]] virtual std::unique_ptr<Exchange> step(const Call& call, std::int64_t index) const = 0;
  /// Offset of the entering states in the workspace.
  [[nodiscard]] virtual std::size_t entering() const = 0;

  [[nodiscard]] const ChainRoute& route() const { return route_; }
  [[nodiscard]] const StateMapShape& shape() const { return shape_; }

 protected:
  /// Numbers of the states, and of the maps, of this many segments.
  [[nodiscard]] std::int64_t states(std::int64_t segments) const { return segments * shape_.rows * shape_.state(); }
  [[nodiscard]] std::int64_t maps(std::int64_t segments) const { return segments * shape_.rows * shape_.slot(); }

 private:
  ChainRoute route_;
  StateMapShape shape_;
};

template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_all_gather_form(ChainRoute route, const StateMapShape& shape);
template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_doubling_form(ChainRoute route, const StateMapShape& shape);
template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_chain_form(ChainRoute route, const StateMapShape& shape);

/// Heads in one message of a chain.
std::int64_t chain_block(const StateMapShape& shape, std::int64_t element_bytes);

/// The step of the doubling whose maps travel `distance` links: links whose window goes out, in the order of their
/// receivers, and links that get one, in the order of the senders. Both ends list what they share in the same order.
struct DoublingStep {
  std::vector<std::int64_t> sends;
  std::vector<std::int64_t> receives;
  std::vector<std::int64_t> send_counts;  ///< for each rank, this one too
  std::vector<std::int64_t> receive_counts;
};
DoublingStep doubling_step(const ChainRoute& route, std::int64_t distance);

template <class V, class Exec>
std::string exchange_label(const char* step) {
  return std::string("krait::state_exchange::") + step + '[' + backend_name<Exec>() + ',' +
         (std::is_same_v<V, double> ? "double" : "float") + ']';
}

/// The factor of a map slot.
template <class V>
KOKKOS_INLINE_FUNCTION SegmentDecay<V> stored_decay(V log_alpha) {
  return {log_alpha, log_alpha != -Kokkos::Experimental::infinity_v<V>};
}

/// A few neighbouring numbers of the state of one head: a thread's share. One on a device; on a host enough that the
/// factor is formed once for many numbers.
template <class Exec>
struct StateStrip {
  static constexpr int size = is_host_execution<Exec> ? 128 : 1;

  std::int64_t block = 0;  ///< slot index, or row
  std::int64_t head = 0;
  std::int64_t first = 0;
  int count = 0;

  /// Strip i of (blocks, heads, state_size).
  KOKKOS_FUNCTION StateStrip(std::int64_t i, std::int64_t heads, std::int64_t state_size) {
    const std::int64_t strips = per_head(state_size);
    first = i % strips * size;
    head = i / strips % heads;
    block = i / strips / heads;
    count = state_size - first < size ? static_cast<int>(state_size - first) : size;
  }
  KOKKOS_FUNCTION static std::int64_t per_head(std::int64_t state_size) { return (state_size + size - 1) / size; }
};

template <class Exec>
Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>> strips(const Exec& exec, std::int64_t blocks,
                                                                  std::int64_t heads, std::int64_t state_size) {
  return {exec, 0, blocks * heads * StateStrip<Exec>::per_head(state_size)};
}

}  // namespace krait::impl
