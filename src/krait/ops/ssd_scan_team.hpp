// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The teams of threads that walk a stretch of a row with the states of some heads in scratch memory.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/ssd_scan_tiling.hpp>
#include <krait/ops/state_tile.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/rows.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// What all sweeps over the segments need: the inputs, the tiles, and the places of what segments hand to each other.
template <Scalar T, class Exec>
struct SweepCall : ScanInputs<T, Exec> {
  using V = accumulator_t<T>;
  using ScanInputs<T, Exec>::ScanInputs;

  V* segment_states;                ///< (rows, segments - 1, H, N, P)
  SegmentDecay<V>* segment_decays;  ///< (rows, segments - 1, H)
  SsdScanTiling tiling;
  int head_tiles;
  int head_blocks;

  /// Which of the stretches of sweep_policy() is a team's.
  template <class Member>
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t stretch_of(const Member& team) const {
    return team.league_rank() / head_tiles / head_blocks;
  }

  /// Number in the tables of what lies between segments `boundary` and `boundary + 1`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t boundary_index(std::int64_t row, std::int64_t boundary,
                                                                   int head) const {
    return (row * (this->segments - 1) + boundary) * this->heads + head;
  }

  void set_tiling(const SsdScanTiling& chosen) {
    tiling = chosen;
    head_tiles = (this->head_dim + tiling.head_tile - 1) / tiling.head_tile;
    head_blocks = (this->heads + tiling.head_block - 1) / tiling.head_block;
  }
};

/// A team's share: a segment of one row, and some channels of a block of heads. Walks chunk by chunk with the states
/// (or their gradients) in scratch memory, chunks outermost and heads inner: so tokens are read in the order in which
/// they lie in memory, and what the heads of a group share is read once. What follows speaks of the head that the team
/// has turned to.
template <Scalar T, class Exec>
class SweepTeam {
 public:
  using V = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  using Call = SweepCall<T, Exec>;
  template <class E>
  using Matrix = tile::Matrix<E>;

  KOKKOS_INLINE_FUNCTION SweepTeam(const Call& call, const Member& team, std::int64_t row, std::int64_t segment)
      : call_(call), team_(team), row_(row), segment_(segment), tokens_(call.segment(segment)) {
    const int head_tile = team.league_rank() % call.head_tiles;
    first_head_ = team.league_rank() / call.head_tiles % call.head_blocks * call.tiling.head_block;
    channel_ = head_tile * call.tiling.head_tile;
    width_ = call.head_dim - channel_ < call.tiling.head_tile ? call.head_dim - channel_ : call.tiling.head_tile;

    const SsdScanScratch scratch(call.tiling, call.d_state, on_host);
    base_ = static_cast<V*>(team.team_scratch(call.tiling.scratch_level)
                                .get_shmem_aligned(static_cast<std::size_t>(scratch.count) * sizeof(V), alignment));
    sweeps_ = reinterpret_cast<HeadSweep*>(base_ + scratch.sweeps);
    states_ = base_ + scratch.state;
    b_ = {base_ + scratch.b, scratch.b_row, 1};
    x_ = {base_ + scratch.x, scratch.row, 1};
    delta_ = base_ + scratch.vectors;
    log_decay_ = delta_ + scratch.token_row;
    high_ = log_decay_ + scratch.token_row;
    low_ = high_ + scratch.token_row;
    enter_ = low_ + scratch.token_row;
    to_head(0);
  }

  /// Turns to a head of the team's block.
  KOKKOS_INLINE_FUNCTION void to_head(int index) {
    head_ = first_head_ + index;
    group_ = (head_ + call_.first_head) / call_.heads_per_group;
    state_ = {states_ + index * call_.d_state * x_.row, x_.row, 1};
  }

  /// work() with each head of the team's block.
  template <class Work>
  KOKKOS_INLINE_FUNCTION void for_each_head(const Work& work) {
    for (int i = 0; i < call_.tiling.head_block && first_head_ + i < call_.heads; ++i) {
      to_head(i);
      work();
    }
  }

  static constexpr bool on_host = is_host_execution<Exec>;
  /// Of the tiles in scratch memory, in bytes: a cache line.
  static constexpr std::size_t alignment = 64;

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t row() const { return row_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t segment() const { return segment_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TokenRange tokens() const { return tokens_; }

  KOKKOS_INLINE_FUNCTION void clear_state() const {
    tile::fill(team_, call_.d_state, width_, V(0), state_);
    team_.team_barrier();
  }

  /// The state of a run, or its gradient, from a tensor of states; zero where there is none.
  KOKKOS_INLINE_FUNCTION void load_state(const MixedTensor<T, 4, Exec>& states, const Run& run) const {
    if (states.absent() || !run.has_state()) {
      clear_state();
      return;
    }
    load_state_tile(team_, states, run.state, head_, channel_, width_, call_.d_state, state_);
    team_.team_barrier();
  }

  /// The place in the workspace of what is handed over between segments `boundary` and `boundary + 1`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> boundary_state(std::int64_t boundary) const {
    const std::int64_t state_size = static_cast<std::int64_t>(call_.head_dim) * call_.d_state;
    return {call_.segment_states + call_.boundary_index(row_, boundary, head_) * state_size + channel_, call_.head_dim,
            1};
  }

  KOKKOS_INLINE_FUNCTION void load_boundary(std::int64_t boundary) const {
    tile::load(team_, call_.d_state, width_, boundary_state(boundary), state_);
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void store_boundary(std::int64_t boundary, const SegmentDecay<V>& decay) const {
    tile::load(team_, call_.d_state, width_, state_, boundary_state(boundary));
    if (channel_ == 0) {
      Kokkos::single(Kokkos::PerTeam(team_),
                     [&]() { call_.segment_decays[call_.boundary_index(row_, boundary, head_)] = decay; });
    }
  }

  /// Where the chunks of [begin, end) begin whose tokens reach `end`: what decays by more than exp() can tell from 0 on
  /// its way is not worth a look. Only the steps are read.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_to_reach(std::int64_t begin, std::int64_t end) const {
    const std::int64_t chunk = call_.tiling.chunk;
    V sum = V(0);
    for (std::int64_t t = begin + (end - begin - 1) / chunk * chunk; t > begin; t -= chunk) {
      sum += log_decay_of(t, t + chunk < end ? t + chunk : end);
      if (sum < vanishing) return t;
    }
    return begin;
  }

  /// The mirror image: where the chunks end whose gradients reach `begin`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t last_to_reach(std::int64_t begin, std::int64_t end) const {
    const std::int64_t chunk = call_.tiling.chunk;
    V sum = V(0);
    for (std::int64_t t = begin; t + chunk < end; t += chunk) {
      sum += log_decay_of(t, t + chunk);
      if (sum < vanishing) return t + chunk;
    }
    return end;
  }

  /// From which token on the state is to be formed by summarize(), or to which its gradient by summarize_gradient().
  KOKKOS_INLINE_FUNCTION void set_reach(std::int64_t token) const {
    Kokkos::single(Kokkos::PerTeam(team_), [&]() { sweeps_[head_ - first_head_] = {token, V(0)}; });
    team_.team_barrier();
  }
  /// Log-decay of the tokens that the last sweep walked.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V log_alpha() const { return sweeps_[head_ - first_head_].log_alpha; }

  /// The states of all heads behind tokens [begin, end), chunk by chunk.
  KOKKOS_INLINE_FUNCTION void summarize(std::int64_t begin, std::int64_t end) {
    const std::int64_t chunk = call_.tiling.chunk;
    for (std::int64_t t = begin; t < end; t += chunk) {
      const int count = static_cast<int>(t + chunk < end ? chunk : end - t);
      std::int64_t loaded = -1;
      for_each_head([&]() {
        if (t < sweeps_[head_ - first_head_].reach) return;
        if (group_ != loaded) load_columns(call_.B, t, count);
        loaded = group_;
        load_channels(call_.x, t, count);
        advance_over_chunk(t, count, log_decay_);
      });
    }
  }

  /// The mirror image: the gradients of the states before tokens [begin, end).
  KOKKOS_INLINE_FUNCTION void summarize_gradient(const Strided<const T, 4>& dout, std::int64_t begin,
                                                 std::int64_t end) {
    const std::int64_t chunk = call_.tiling.chunk;
    for (std::int64_t behind = end; behind > begin;) {
      const std::int64_t t = begin + (behind - begin - 1) / chunk * chunk;
      const int count = static_cast<int>(behind - t);
      std::int64_t loaded = -1;
      for_each_head([&]() {
        if (t >= sweeps_[head_ - first_head_].reach) return;
        if (group_ != loaded) load_columns(call_.C, t, count);
        loaded = group_;
        load_output_gradients(dout, t, count);
        advance_over_chunk(t, count, enter_);
      });
      behind = t;
    }
  }

 protected:
  /// What a head has in a sweep of its own length.
  struct HeadSweep {
    std::int64_t reach;
    V log_alpha;
  };
  static_assert(sizeof(HeadSweep) <= SsdScanScratch::sweep_size * sizeof(V));

  /// S = e^{sum} S + B^T (factors x), with the decay of the whole chunk: of x and B, or their gradients, that are
  /// loaded. Changes x. `factors` are those of chunk_factors().
  KOKKOS_INLINE_FUNCTION void advance_over_chunk(std::int64_t first, int count, const V* factors) const {
    load_steps(first, count);
    team_.team_barrier();
    tile::cumulative_sum(team_, count, log_decay_, high_, low_);
    team_.team_barrier();
    chunk_factors(count);
    Kokkos::single(Kokkos::PerTeam(team_),
                   [&]() { sweeps_[head_ - first_head_].log_alpha += high_[count - 1] + low_[count - 1]; });
    team_.team_barrier();
    tile::scale_rows(team_, count, width_, factors, x_);
    team_.team_barrier();
    tile::gemm(team_, call_.d_state, width_, count, b_, x_, enter_[count - 1], state_);
    team_.team_barrier();
  }

  /// dout of a chunk, through the gate if there is one.
  KOKKOS_INLINE_FUNCTION void load_output_gradients(const Strided<const T, 4>& dout, std::int64_t first,
                                                    int count) const {
    if (!call_.z.given() && !call_.out_map.given()) return load_channels(dout, first, count);
    tile::for_each(team_, count, width_, [&](int m, int p) {
      V value = static_cast<V>(dout(row_, call_.out_place(first + m), head_, channel_ + p));
      if (call_.z.given()) value *= tile::silu(static_cast<V>(call_.z(row_, first + m, head_, channel_ + p)));
      x_(m, p) = value;
    });
  }

  /// A log-decay whose exponential is 0, and not even denormal.
  static constexpr V vanishing = std::is_same_v<V, double> ? V(-746) : V(-104);

  /// Sum over at most a chunk.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V log_decay_of(std::int64_t begin, std::int64_t end) const {
    const int count = static_cast<int>(end - begin);
    load_steps(begin, count);
    team_.team_barrier();
    V sum = V(0);
    for (int j = 0; j < count; ++j) sum += log_decay_[j];
    team_.team_barrier();
    return sum;
  }

  /// Step sizes and log-decays of a chunk.
  KOKKOS_INLINE_FUNCTION void load_steps(std::int64_t first, int count) const {
    load_raw_steps(first, count);
    team_.team_barrier();
    tile::chunk_steps(team_, tile::ChunkSteps<V>{count, call_.A(head_), delta_, nullptr, log_decay_}, call_.rule);
  }
  KOKKOS_INLINE_FUNCTION void load_raw_steps(std::int64_t first, int count) const {
    const V bias = call_.bias(head_);
    tile::for_each(team_, 1, count, [&](int, int j) { delta_[j] = call_.raw_step(row_, first + j, head_, bias); });
  }

  /// B (or C) of a chunk, transposed.
  KOKKOS_INLINE_FUNCTION void load_columns(const Strided<const T, 4>& from, std::int64_t first, int count) const {
    tile::load(team_, count, call_.d_state,
               Matrix<const T>{&from(row_, first, group_, 0), from.stride[1], from.stride[3]}, b_.transposed());
  }

  /// Some channels of the head; on a host the rows of the next head are asked for.
  KOKKOS_INLINE_FUNCTION void load_channels(const Strided<const T, 4>& from, std::int64_t first, int count) const {
    if constexpr (on_host) {
      if (from.stride[3] == 1) {
        const T* rows = &from(row_, first, head_, channel_);
        const T* next = head_ + 1 < call_.heads ? rows + from.stride[2] : nullptr;
        Kokkos::single(Kokkos::PerTeam(team_), [&]() {
          tile::load_rows(tile::InputRows<T, V>{count, width_, rows, from.stride[1], next, x_.data, x_.row});
        });
        return;
      }
    }
    tile::load(team_, count, width_,
               Matrix<const T>{&from(row_, first, head_, channel_), from.stride[1], from.stride[3]}, x_);
  }

  /// The factors of each token from the beginning and to the end of the chunk; the second, which is to be met by
  /// x and delta, takes the place of the log-decays.
  KOKKOS_INLINE_FUNCTION void chunk_factors(int count) const {
    tile::chunk_factors(team_, tile::ChunkFactors<V>{count, high_, low_, delta_, enter_, nullptr, log_decay_});
  }

  const Call& call_;
  const Member& team_;
  std::int64_t row_, segment_;
  TokenRange tokens_;
  std::int64_t group_;
  int head_, channel_, width_;
  V* base_;
  HeadSweep* sweeps_;
  V* states_;
  int first_head_;
  Matrix<V> state_, b_, x_;
  V *delta_, *log_decay_, *high_, *low_, *enter_;
};

/// Teams for `stretches` stretches of all heads.
template <Scalar T, class Exec>
Kokkos::TeamPolicy<Exec> sweep_policy(const Exec& exec, const char* function, const SweepCall<T, Exec>& call,
                                      std::int64_t stretches) {
  const std::int64_t teams = stretches * call.head_blocks * call.head_tiles;
  KRAIT_REQUIRE(CapacityError, teams <= std::numeric_limits<int>::max(), function, ": ", teams,
                " teams, expected less than 2^31; call with fewer rows");
  const SsdScanScratch scratch(call.tiling, call.d_state, SweepTeam<T, Exec>::on_host);
  Kokkos::TeamPolicy<Exec> policy(exec, static_cast<int>(teams), call.tiling.team_size);
  const std::size_t bytes =
      static_cast<std::size_t>(scratch.count) * sizeof(accumulator_t<T>) + SweepTeam<T, Exec>::alignment;
  return policy.set_scratch_size(call.tiling.scratch_level, Kokkos::PerTeam(bytes));
}

}  // namespace krait::impl
