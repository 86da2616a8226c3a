// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How the backward of a scan is cut into pieces of work, and what of it lies in a team's scratch memory.

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace krait::impl {

/// The piece of work of a team. A zero stands for the plan's own choice.
struct SsdScanBackwardTiling {
  int chunk = 0;          ///< tokens at a time
  int head_block = 0;     ///< heads of one group that a team walks together, sharing <C, B> and the sums dB and dC
  int kept_chunks = 0;    ///< chunks whose entering states are kept at a time; a longer segment is recomputed in parts
  int team_size = 0;      ///< threads
  int scratch_level = 0;  ///< 0 on chip, 1 in global memory; on hosts both are ordinary memory
};

/// Places of the tiles in scratch memory, counted in accumulators from its beginning. Tiles whose rows are tokens have
/// stride `stride`, padded by one on a GPU, where transposing would meet one memory bank.
struct SsdScanBackwardScratch {
  SsdScanBackwardScratch() = default;
  SsdScanBackwardScratch(std::int64_t chunk, std::int64_t head_dim, std::int64_t d_state, std::int64_t pad)
      : stride(chunk + pad),
        b(0),
        c(b + d_state * stride),
        db(c + d_state * stride),
        dc(db + d_state * stride),
        entering(dc + d_state * stride),
        scores(entering + d_state * stride),
        dscores(scores + chunk * chunk),
        weights(dscores + chunk * chunk),
        pairs(weights + chunk * chunk),
        x(pairs + chunk * chunk),
        dy(x + chunk * head_dim),
        du(dy + chunk * head_dim),
        x_columns(du + chunk * head_dim),
        dy_columns(x_columns + head_dim * stride),
        state_dots(dy_columns + head_dim * stride),
        channel_dots(state_dots + d_state),
        delta(channel_dots + head_dim),
        slope(delta + chunk),
        log_decay(slope + chunk),
        high(log_decay + chunk),
        low(high + chunk),
        enter(low + chunk),
        leave(enter + chunk),
        from_behind(leave + chunk),
        from_before(from_behind + chunk),
        between(from_before + chunk),
        columns(between + chunk),
        skip(columns + chunk),
        count(skip + head_dim) {}

  std::int64_t stride = 0;
  std::int64_t b = 0;             ///< (N, chunk)
  std::int64_t c = 0;             ///< (N, chunk)
  std::int64_t db = 0;            ///< (N, chunk), summed over the heads of the block, as are dc and dscores
  std::int64_t dc = 0;            ///< (N, chunk)
  std::int64_t entering = 0;      ///< (N, chunk): what the entering state adds to dC, of one head
  std::int64_t scores = 0;        ///< (chunk, chunk): <C_m, B_k>
  std::int64_t dscores = 0;       ///< (chunk, chunk): their gradient
  std::int64_t weights = 0;       ///< (chunk, chunk): scores times decays
  std::int64_t pairs = 0;         ///< (chunk, chunk): <dy_m, x_k>, then what chunk_pairs() leaves
  std::int64_t x = 0;             ///< (chunk, P)
  std::int64_t dy = 0;            ///< (chunk, P)
  std::int64_t du = 0;            ///< (chunk, P): gradient of delta x
  std::int64_t x_columns = 0;     ///< (P, chunk): x transposed
  std::int64_t dy_columns = 0;    ///< (P, chunk)
  std::int64_t state_dots = 0;    ///< (N)
  std::int64_t channel_dots = 0;  ///< (P)
  std::int64_t delta = 0;         ///< step sizes; all from here on are vectors over the tokens
  std::int64_t slope = 0;         ///< their derivatives
  std::int64_t log_decay = 0;     ///< later: leave times delta
  std::int64_t high = 0;          ///< sums of the log-decays, in two parts; low likewise
  std::int64_t low = 0;
  std::int64_t enter = 0;        ///< decay from the beginning of the chunk to the token
  std::int64_t leave = 0;        ///< decay from the token to the end of the chunk
  std::int64_t from_behind = 0;  ///< leave_k <dS B_k, x_k>
  std::int64_t from_before = 0;  ///< enter_m <S_in C_m, dy_m>
  std::int64_t between = 0;      ///< gradient of the log-decay, as it comes together
  std::int64_t columns = 0;      ///< what the pairs of token k add to <du_k, x_k>
  std::int64_t skip = 0;         ///< (P): of a head
  std::int64_t count = 0;
};

/// Heads [begin, end) of a call; none when begin == end.
struct HeadRange {
  int begin = 0;
  int end = 0;
};

/// The heads of a call in blocks of one group each. Sums over the heads of a group are formed block by block, so this
/// partition depends on the shape alone.
struct HeadBlocks {
  std::int64_t heads = 0, heads_per_group = 1, first_head = 0, groups = 0;
  int head_block = 1;

  /// The most that a group has.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t per_group() const {
    const std::int64_t most = heads < heads_per_group ? heads : heads_per_group;
    return (most + head_block - 1) / head_block;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t count() const { return groups * per_group(); }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION HeadRange block(std::int64_t group, std::int64_t index) const {
    const std::int64_t first = within(group * heads_per_group - first_head);
    const std::int64_t last = within((group + 1) * heads_per_group - first_head);
    const std::int64_t begin = first + index * head_block;
    if (begin >= last) return {};
    return {static_cast<int>(begin), static_cast<int>(begin + head_block < last ? begin + head_block : last)};
  }

  /// Whether every group has one block: then there is nothing to be added up.
  [[nodiscard]] bool one_per_group() const {
    return per_group() == 1 && first_head < heads_per_group && first_head + heads > (groups - 1) * heads_per_group;
  }

 private:
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t within(std::int64_t head) const {
    return head < 0 ? 0 : (head < heads ? head : heads);
  }
};

}  // namespace krait::impl
