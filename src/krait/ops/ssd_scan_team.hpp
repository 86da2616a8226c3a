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
#include <krait/ops/team_memory.hpp>
#include <krait/tile/coming_rows.hpp>
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
  SsdScanScratch scratch;
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
    scratch = SsdScanScratch::of<Exec, T>(tiling, this->d_state);
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
  using Member = typename ChipTeamPolicy<Exec>::member_type;
  using Call = SweepCall<T, Exec>;
  using Operand = tile::operand_t<Exec, T>;
  template <class E>
  using Matrix = tile::Matrix<E>;

  static constexpr ScanTiles tiles = scan_tiles<Exec, T>;
  /// Of the tiles in scratch memory, in bytes: a cache line.
  static constexpr std::size_t alignment = 64;

  /// \param outputs  as in sweep_policy()
  KOKKOS_INLINE_FUNCTION SweepTeam(const Call& call, const Member& team, std::int64_t row, std::int64_t segment,
                                   bool outputs = false)
      : call_(call), team_(team), row_(row), segment_(segment), tokens_(call.segment(segment)) {
    const int head_tile = team.league_rank() % call.head_tiles;
    first_head_ = team.league_rank() / call.head_tiles % call.head_blocks * call.tiling.head_block;
    channel_ = head_tile * call.tiling.head_tile;
    width_ = call.head_dim - channel_ < call.tiling.head_tile ? call.head_dim - channel_ : call.tiling.head_tile;

    const std::int64_t count = outputs ? call.scratch.count : call.scratch.sweep_count;
    base_ = static_cast<V*>(team.team_scratch(call.tiling.scratch_level)
                                .get_shmem_aligned(static_cast<std::size_t>(count) * sizeof(V), alignment));
    if (tiles == ScanTiles::warps || (tiles == ScanTiles::vectors && outputs)) {
      // Vectors and warps also work on what lies behind the last channel and token.
      tile::fill(team_, 1, static_cast<int>(count), V(0), Matrix<V>{base_, 0, 1});
      team_.team_barrier();
    }
    to_head(0);
  }

  /// Turns to a head of the team's block.
  KOKKOS_INLINE_FUNCTION void to_head(int index) {
    head_ = first_head_ + index;
    group_ = (head_ + call_.first_head) / call_.heads_per_group;
    place_ = index;
    if constexpr (tiles == ScanTiles::vectors) beside_ = index % call_.tiling.abreast;
  }

  /// work() with each of `heads` heads from the present one on, and back to that.
  template <class Work>
  KOKKOS_INLINE_FUNCTION void for_heads_from(int heads, const Work& work) {
    const int first = place_;
    for (int i = 0; i < heads; ++i) {
      to_head(first + i);
      work();
    }
    to_head(first);
  }

  /// work(heads), turned to the first, for the heads of the team's block that lie side by side in the tiles.
  template <class Work>
  KOKKOS_INLINE_FUNCTION void for_heads_abreast(const Work& work) {
    const int block = heads_of_block();
    const int step = call_.tiling.abreast;
    for (int i = 0; i < block; i += step) {
      to_head(i);
      work(block - i < step ? block - i : step);
    }
  }

  /// work() with each head of the team's block.
  template <class Work>
  KOKKOS_INLINE_FUNCTION void for_each_head(const Work& work) {
    for (int i = 0; i < heads_of_block(); ++i) {
      to_head(i);
      work();
    }
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION int heads_of_block() const {
    const int left = call_.heads - first_head_;
    return left < call_.tiling.head_block ? left : call_.tiling.head_block;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t row() const { return row_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t segment() const { return segment_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TokenRange tokens() const { return tokens_; }

  KOKKOS_INLINE_FUNCTION void clear_state() const {
    tile::fill(team_, call_.d_state, width_, V(0), state());
    team_.team_barrier();
  }

  /// The state of a run, or its gradient, from a tensor of states; zero where there is none.
  KOKKOS_INLINE_FUNCTION void load_state(const MixedTensor<T, 4, Exec>& states, const Run& run) const {
    if (states.absent() || !run.has_state()) {
      clear_state();
      return;
    }
    load_state_tile(team_, states, run.state, head_, channel_, width_, call_.d_state, state());
    team_.team_barrier();
  }

  /// The place in the workspace of what is handed over between segments `boundary` and `boundary + 1`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> boundary_state(std::int64_t boundary) const {
    const std::int64_t state_size = static_cast<std::int64_t>(call_.head_dim) * call_.d_state;
    return {call_.segment_states + call_.boundary_index(row_, boundary, head_) * state_size + channel_, call_.head_dim,
            1};
  }

  KOKKOS_INLINE_FUNCTION void load_boundary(std::int64_t boundary) const {
    tile::load(team_, call_.d_state, width_, boundary_state(boundary), state());
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void store_boundary(std::int64_t boundary, const SegmentDecay<V>& decay) const {
    tile::load(team_, call_.d_state, width_, state(), boundary_state(boundary));
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
    HeadSweep& sweep = this->sweep();
    Kokkos::single(Kokkos::PerTeam(team_), [&]() { sweep = {token, V(0)}; });
    team_.team_barrier();
  }
  /// Log-decay of the tokens that the last sweep walked.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V log_alpha() const { return sweep().log_alpha; }

  /// The states of all heads behind tokens [begin, end), chunk by chunk.
  KOKKOS_INLINE_FUNCTION void summarize(std::int64_t begin, std::int64_t end) {
    const auto chunk_at = [&](std::int64_t t) {
      return TokenRange{t, end - t < call_.tiling.chunk ? end : t + call_.tiling.chunk};
    };
    const auto walks = [&](const TokenRange& tokens, int index) { return tokens.begin >= sweep(index).reach; };
    for (TokenRange tokens = chunk_at(begin); tokens.begin < end; tokens = chunk_at(tokens.end)) {
      const int count = static_cast<int>(tokens.end - tokens.begin);
      std::int64_t loaded = -1;
      for_each_head([&]() {
        if (!walks(tokens, place_)) return;
        if (group_ != loaded) load_columns(call_.B, tokens.begin, count);
        loaded = group_;
        load_channels(call_.x, tokens.begin, count);
        advance_over_chunk(tokens.begin, count, log_decay(),
                           coming_channels(call_.x, tokens, chunk_at(tokens.end), walks));
      });
    }
  }

  /// The mirror image: the gradients of the states before tokens [begin, end).
  KOKKOS_INLINE_FUNCTION void summarize_gradient(const Strided<const T, 4>& dout, std::int64_t begin,
                                                 std::int64_t end) {
    const auto chunk_to = [&](std::int64_t behind) {
      const std::int64_t chunk = call_.tiling.chunk;
      return TokenRange{behind > begin ? begin + (behind - begin - 1) / chunk * chunk : begin, behind};
    };
    const auto walks = [&](const TokenRange& tokens, int index) { return tokens.begin < sweep(index).reach; };
    for (TokenRange tokens = chunk_to(end); tokens.end > begin; tokens = chunk_to(tokens.begin)) {
      const int count = static_cast<int>(tokens.end - tokens.begin);
      std::int64_t loaded = -1;
      for_each_head([&]() {
        if (!walks(tokens, place_)) return;
        if (group_ != loaded) load_columns(call_.C, tokens.begin, count);
        loaded = group_;
        load_output_gradients(dout, tokens.begin, count);
        advance_over_chunk(
            tokens.begin, count, enter(),
            dout_is_plain() ? coming_channels(dout, tokens, chunk_to(tokens.begin), walks) : tile::Coming());
      });
    }
  }

 protected:
  /// What a head has in a sweep of its own length.
  struct HeadSweep {
    std::int64_t reach;
    V log_alpha;
  };
  static_assert(sizeof(HeadSweep) <= SsdScanScratch::sweep_size * sizeof(V));

  [[nodiscard]] KOKKOS_INLINE_FUNCTION HeadSweep& sweep(int index) const {
    return reinterpret_cast<HeadSweep*>(base_ + call_.scratch.sweeps)[index];
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION HeadSweep& sweep() const { return sweep(place_); }

  // Tiles in scratch memory, see SsdScanScratch: functions and not members, so that a GPU's threads need not hold all
  // these addresses.

  /// Of the tiles, the first that is the head's.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION int column() const { return tiles == ScanTiles::vectors ? beside_ * width_ : 0; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> state() const {
    const int place = tiles == ScanTiles::vectors ? place_ / call_.tiling.abreast : place_;
    V* const begin = base_ + call_.scratch.state + place * call_.scratch.state_size + column();
    const std::int64_t row = call_.scratch.state_row;
    return tiles == ScanTiles::warps ? Matrix<V>{begin, 1, row} : Matrix<V>{begin, row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<Operand> b() const {
    auto* const begin = operands(call_.scratch.b);
    const std::int64_t row = call_.scratch.b_row;
    return tiles == ScanTiles::warps ? Matrix<Operand>{begin, 1, row} : Matrix<Operand>{begin, row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<Operand> x() const {
    return {operands(call_.scratch.x) + column(), call_.scratch.row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Operand* operands(std::int64_t place) const {
    return reinterpret_cast<Operand*>(base_ + place);
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* token_vector(int index) const {
    V* const begin = base_ + call_.scratch.vectors + index * call_.scratch.vector;
    return tiles == ScanTiles::vectors ? begin + beside_ * call_.scratch.token_row : begin;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* delta() const { return token_vector(0); }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* log_decay() const { return token_vector(1); }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* high() const { return token_vector(2); }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* low() const { return token_vector(3); }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* enter() const { return token_vector(4); }

  /// S = e^{sum} S + B^T (factors x), with the decay of the whole chunk: of x and B, or their gradients, that are
  /// being loaded. Changes x. `factors` are those of chunk_decays().
  KOKKOS_INLINE_FUNCTION void advance_over_chunk(std::int64_t first, int count, const V* factors,
                                                 const tile::Coming& coming) const {
    load_raw_steps(first, count);
    tile::await_loads(team_);
    tile::chunk_decays(
        team_, tile::ChunkDecays<V>{count, call_.A(head_), call_.rule, delta(), high(), low(), enter(), log_decay()});
    V& log_alpha = sweep().log_alpha;
    const V sum = high()[count - 1] + low()[count - 1];
    Kokkos::single(Kokkos::PerTeam(team_), [&]() { log_alpha += sum; });
    tile::advance_state(team_, kind(), count, call_.d_state, width_, factors, b(), x(), enter()[count - 1], state(),
                        coming);
  }

  /// Whether the gradients of the scan's outputs are dout as it lies there: not gated, in the order of the tokens.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION bool dout_is_plain() const { return !call_.z.given() && !call_.out_map.given(); }

  /// dout of a chunk, through the gate if there is one.
  KOKKOS_INLINE_FUNCTION void load_output_gradients(const Strided<const T, 4>& dout, std::int64_t first,
                                                    int count) const {
    if (dout_is_plain()) return load_channels(dout, first, count);
    const Matrix<Operand> to = x();
    tile::for_each(team_, count, width_, [&](int m, int p) {
      V value = static_cast<V>(dout(row_, call_.out_place(first + m), head_, channel_ + p));
      if (call_.z.given()) value *= tile::silu(static_cast<V>(call_.z(row_, first + m, head_, channel_ + p)));
      to(m, p) = static_cast<Operand>(value);
    });
    tile::clear_behind(team_, count, width_, to);
  }

  /// A log-decay whose exponential is 0, and not even denormal.
  static constexpr V vanishing = std::is_same_v<V, double> ? V(-746) : V(-104);

  /// Sum over at most a chunk.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V log_decay_of(std::int64_t begin, std::int64_t end) const {
    const int count = static_cast<int>(end - begin);
    load_raw_steps(begin, count);
    team_.team_barrier();
    tile::chunk_steps(team_, tile::ChunkSteps<V>{count, call_.A(head_), delta(), nullptr, log_decay()}, call_.rule);
    team_.team_barrier();
    V sum = V(0);
    const V* const terms = log_decay();
    for (int j = 0; j < count; ++j) sum += terms[j];
    team_.team_barrier();
    return sum;
  }

  KOKKOS_INLINE_FUNCTION void load_raw_steps(std::int64_t first, int count) const {
    const V bias = call_.bias(head_);
    V* const raw = delta();
    tile::for_each(team_, 1, count, [&](int, int j) { raw[j] = call_.raw_step(row_, first + j, head_, bias); });
  }

  /// Starts to load B (or C) of a chunk, transposed. It is there after await_loads(), as what follows.
  KOKKOS_INLINE_FUNCTION void load_columns(const Strided<const T, 4>& from, std::int64_t first, int count) const {
    tile::start_load(team_, kind(), count, call_.d_state,
                     Matrix<const T>{&from(row_, first, group_, 0), from.stride[1], from.stride[3]}, b().transposed());
  }

  /// Some channels of the head.
  KOKKOS_INLINE_FUNCTION void load_channels(const Strided<const T, 4>& from, std::int64_t first, int count) const {
    if constexpr (tiles == ScanTiles::vectors) {
      if (from.stride[3] == 1) return load_channel_rows(from, first, count, 1);
    }
    tile::start_load(team_, kind(), count, width_,
                     Matrix<const T>{&from(row_, first, head_, channel_), from.stride[1], from.stride[3]}, x());
  }

  /// The same on a host, where the channels lie side by side: of one head, or of several that do so too.
  KOKKOS_INLINE_FUNCTION void load_channel_rows(const Strided<const T, 4>& from, std::int64_t first, int count,
                                                int heads) const {
    const T* rows = &from(row_, first, head_, channel_);
    Kokkos::single(Kokkos::PerTeam(team_), [&]() {
      tile::load_rows(tile::InputRows<T, V>{count, heads * width_, rows, from.stride[1], x().data, x().row});
    });
  }

  /// Tokens of some heads, from head `head` on, whose channels lie side by side, are to be asked for. Tensors without
  /// rows are not.
  template <class E>
  KOKKOS_INLINE_FUNCTION void announce(const Strided<E, 4>& tensor, std::int64_t first, std::int64_t count, int head,
                                       int heads, tile::Coming& coming) const {
    constexpr auto size = static_cast<std::int64_t>(sizeof(T));
    if (!tensor.given() || tensor.stride[3] != 1) return;
    coming.rows[coming.count++] = {static_cast<int>(count), static_cast<int>(heads * size * width_),
                                   reinterpret_cast<const char*>(&tensor(row_, first, head, channel_)),
                                   tensor.stride[1] * size};
  }

  /// What a sweep loads after the present head's channels, on a host: those of the next head that walks these tokens,
  /// or else of the first that walks those `behind`.
  template <class Walks>
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Coming coming_channels(const Strided<const T, 4>& from,
                                                                    const TokenRange& tokens, const TokenRange& behind,
                                                                    const Walks& walks) const {
    tile::Coming rows;
    if constexpr (tiles == ScanTiles::vectors) {
      const auto ask = [&](const TokenRange& of, int index) {
        while (index < heads_of_block() && !walks(of, index)) ++index;
        if (index == heads_of_block()) return false;
        announce(from, of.begin, of.end - of.begin, first_head_ + index, 1, rows);
        return true;
      };
      if (!ask(tokens, place_ + 1) && behind.begin < behind.end) ask(behind, 0);
    }
    return rows;
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::ProductKind kind() const {
    return {call_.tiling.scratch_level == 0, call_.tf32};
  }

  const Call& call_;
  const Member& team_;
  std::int64_t row_, segment_;
  TokenRange tokens_;
  std::int64_t group_;
  int head_, channel_, width_;
  V* base_;
  int first_head_;
  int place_;       ///< of the head in the block
  int beside_ = 0;  ///< on a host, heads abreast that come before it
};

/// Teams for `stretches` stretches of all heads. With `outputs` they have the tiles that outputs take.
template <Scalar T, class Exec>
auto sweep_policy(const Exec& exec, const char* function, const SweepCall<T, Exec>& call, std::int64_t stretches,
                  bool outputs = false) {
  const std::int64_t teams = stretches * call.head_blocks * call.head_tiles;
  KRAIT_REQUIRE(CapacityError, teams <= std::numeric_limits<int>::max(), function, ": ", teams,
                " teams, expected less than 2^31; call with fewer rows");
  ChipTeamPolicy<Exec> policy(exec, static_cast<int>(teams), call.tiling.team_size);
  const std::size_t bytes =
      static_cast<std::size_t>(outputs ? call.scratch.count : call.scratch.sweep_count) * sizeof(accumulator_t<T>) +
      SweepTeam<T, Exec>::alignment;
  policy.set_scratch_size(call.tiling.scratch_level, Kokkos::PerTeam(bytes));
  return policy;
}

}  // namespace krait::impl
