// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/state_exchange.hpp>

#include <krait/parallel/state_exchange_form.hpp>

namespace krait::impl {
namespace {

/// Counts messages in which some maps or states travel to, or from, each rank.
void count(const std::vector<std::int64_t>& counts, int rank, std::int64_t bytes_each, std::int64_t& messages,
           std::int64_t& bytes) {
  for (std::size_t peer = 0; peer < counts.size(); ++peer) {
    if (static_cast<int>(peer) == rank || counts[peer] * bytes_each == 0) continue;
    ++messages;
    bytes += counts[peer] * bytes_each;
  }
}

}  // namespace

OperationCounters state_exchange_counts(StateExchange form, const std::vector<int>& owners, const Place& place,
                                        ChainDirection direction, const StateMapShape& shape,
                                        std::int64_t element_bytes) {
  require_state_exchange("krait::state_exchange_counts", form, owners, place, shape);
  const ChainRoute route(owners, place, direction);
  const std::int64_t map_bytes = element_bytes * shape.rows * shape.slot();
  OperationCounters result;
  result.calls = 1;
  const auto count_both = [&](const std::vector<std::int64_t>& sends, const std::vector<std::int64_t>& receives) {
    count(sends, place.rank, map_bytes, result.messages_sent, result.bytes_sent);
    count(receives, place.rank, map_bytes, result.messages_received, result.bytes_received);
  };
  if (form == StateExchange::all_gather) {
    count_both(std::vector<std::int64_t>(route.counts.size(), route.local_segments()), route.counts);
  } else if (form == StateExchange::doubling) {
    for (std::int64_t distance = 1; distance < route.segments(); distance *= 2) {
      const DoublingStep step = doubling_step(route, distance);
      count_both(step.send_counts, step.receive_counts);
    }
  } else if (shape.rows > 0) {
    const std::int64_t state_bytes = element_bytes * shape.rows * shape.state();
    const std::int64_t block = chain_block(shape, element_bytes);
    const std::int64_t blocks = (shape.heads + block - 1) / block;
    for (const std::int64_t link : route.own) {
      if (route.sends_on(link)) {
        result.messages_sent += blocks;
        result.bytes_sent += state_bytes;
      }
      if (link > 0 && route.sends_on(link - 1)) {
        result.messages_received += blocks;
        result.bytes_received += state_bytes;
      }
    }
  }
  return result;
}

}  // namespace krait::impl
