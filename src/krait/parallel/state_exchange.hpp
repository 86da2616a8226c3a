// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How states reach the segments of a sequence that ranks share. The segments of all ranks, in order of tokens, form a
/// chain; each acts on the state of a head as S_out = alpha * S_in + E (`ops/segment.hpp`). An exchange turns the maps
/// (E, log alpha) of all segments into the state that enters each segment.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/comm/request.hpp>
#include <krait/core/tensor.hpp>
#include <krait/parallel/strategy.hpp>

namespace krait::impl {

/// Which way something travels along the chain: states with the tokens, their gradients against them.
enum class ChainDirection { ascending, descending };

/// The extents of the maps of one segment.
struct StateMapShape {
  std::int64_t rows = 0;        ///< rows of the batch
  std::int64_t heads = 0;       ///< H
  std::int64_t state_size = 0;  ///< P * N, numbers of one head's state
  /// Heads in one message of StateExchange::chain. 0: as many as make a message of about 256 KiB.
  std::int64_t chain_heads = 0;

  /// Numbers of a row's state, (H, P, N).
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t state() const { return heads * state_size; }
  /// Numbers of a map slot: E in order (H, P, N), then log alpha (H). -infinity: nothing of the entering state leaves.
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t slot() const { return state() + heads; }
};

/// What a rank sends and receives in one exchange, in closed form: what the communicator's counters will say.
/// \param form           not automatic
/// \param owners         rank that owns segment 0, 1, ... of the chain, in order of tokens
/// \param element_bytes  of the numbers in a map: 4 or 8
/// \returns one call of counters; `seconds_waited` is 0
///
/// With M segments of which this rank r has m, and messages of V = element_bytes * rows * slot() bytes:
///
///     all_gather   receives (M - m) V, sends m V to each other rank
///     doubling     V from s to s + d for d = 1, 2, 4, ... < M where the ranks differ; one message per step and pair of
///     ranks chain        element_bytes * rows * state() from s to s + 1 where the ranks differ, a message per block of
///     heads
OperationCounters state_exchange_counts(StateExchange form, const std::vector<int>& owners, const Place& place,
                                        ChainDirection direction, const StateMapShape& shape,
                                        std::int64_t element_bytes);

/// States under way.
template <class V, class Exec>
struct StateArrival {
  /// (local segments * rows, H * P * N), lies in the workspace; may be read once `request` is over.
  Tensor<const V**, Exec> entering;
  Request request;
};

template <class V, class Exec>
class StateExchangeForm;

/// Plan of an exchange for one chain, one direction and one shape. Who sends what to whom follows from the chain alone,
/// never from data or documents. A rank may have any number of segments; its segments are numbered in order of tokens,
/// in both directions. Immutable; after the first call nothing is allocated on the device.
/// \tparam V  scalar of states: float or double
template <class V, class Exec>
class StateExchangePlan {
 public:
  /// \param form    not automatic
  /// \param owners  rank that owns segment 0, 1, ... of the chain, in order of tokens; equal on all ranks
  /// \throws ConfigError for the form automatic, an owner that does not exist, or chain_heads below 0
  /// \throws ShapeError for negative extents
  StateExchangePlan(StateExchange form, const std::vector<int>& owners, const Place& place, ChainDirection direction,
                    const StateMapShape& shape);

  /// Segments of this rank.
  [[nodiscard]] std::int64_t local_segments() const;
  [[nodiscard]] std::size_t workspace_bytes() const;

  /// Starts the exchange. All ranks call it, also those without a segment. Entering is
  ///
  ///     ascending    the state that enters segment s from segment s - 1; zero for the first segment of the chain
  ///     descending   the gradient of the state that leaves segment s, from segment s + 1; zero for the last segment
  ///
  /// \param maps       (local segments * rows, slot()), contiguous; slot of row b of local segment i at i * rows + b
  /// \param workspace  at least workspace_bytes(), aligned to 128 bytes
  ///
  /// Both are in use until the request is over. The plan itself is not: it may end before. Kernels run on `exec`, some
  /// of them when the request is looked after.
  /// \throws LayoutError for another rank or size of the communicator
  /// \throws ShapeError for other maps, CapacityError for too little workspace
  [[nodiscard]] StateArrival<V, Exec> post(const Exec& exec, const Communicator& comm,
                                           const Tensor<const V**, Exec>& maps,
                                           const Tensor<std::byte*, Exec>& workspace) const;

 private:
  Place place_;
  std::shared_ptr<const StateExchangeForm<V, Exec>> form_;
};

}  // namespace krait::impl
