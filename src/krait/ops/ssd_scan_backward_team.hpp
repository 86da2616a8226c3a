// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What one team does in the backward of the scan: a block of heads of one segment of one row.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_backward_tiling.hpp>
#include <krait/ops/ssd_scan_backward_workspace.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/ssd_scan_team.hpp>
#include <krait/ops/state_tile.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// What a kernel needs to know of the call.
template <Scalar T, class Exec>
struct ScanBackwardCall : ScanInputs<T, Exec> {
  using V = accumulator_t<T>;
  using ScanInputs<T, Exec>::ScanInputs;

  Strided<const T, 4> y, dout;
  MixedTensor<T, 4, Exec> dfinal_states;
  Strided<T, 4> dx, dB, dC, dz;
  Strided<T, 3> ddt;
  Strided<V, 4> dinitial_states;

  // The workspace, see SsdScanBackwardWorkspace.
  const V* boundary_states;
  const V* boundary_gradients;
  V *states, *part_states, *run_states, *gradients;
  V *dB_sums, *dC_sums;  ///< null where dB and dC are final
  std::int64_t begun_groups;
  V *dA_sums, *ddt_bias_sums, *dD_sums;

  HeadBlocks blocks;
  SsdScanBackwardWork work;
  SsdScanBackwardTiling tiling;
  SsdScanBackwardScratch scratch;
};

/// A run, or its part in one segment, as a team walks it.
struct ScanStretch {
  std::int64_t begin, end;
  std::int64_t state;   ///< of the run, or Run::no_state
  bool begins, ends;    ///< whether the run does so here, and not in another segment
  bool enters, leaves;  ///< whether a state enters, and whether a gradient comes from behind; otherwise it is zero
};

/// A worker. Walks the segment of an item forwards, keeping the states that enter the chunks, and then backwards; with
/// many chunks it does so part by part, from the last to the first.
template <Scalar T, class Exec>
class ScanBackwardTeam {
 public:
  using V = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  using Call = ScanBackwardCall<T, Exec>;
  template <class E>
  using Matrix = tile::Matrix<E>;

  static constexpr int pad = is_host_execution<Exec> ? 0 : 1;
  /// Of the tiles in scratch memory, in bytes: a cache line.
  static constexpr std::size_t alignment = 64;

  KOKKOS_INLINE_FUNCTION ScanBackwardTeam(const Call& call, const Member& team)
      : call_(call),
        team_(team),
        base_(static_cast<V*>(
            team.team_scratch(call.tiling.scratch_level)
                .get_shmem_aligned(static_cast<std::size_t>(call.scratch.count) * sizeof(V), alignment))) {}

  KOKKOS_INLINE_FUNCTION void walk(std::int64_t item) {
    std::int64_t rest = item;
    const std::int64_t per_group = call_.blocks.per_group();
    const std::int64_t index = rest % per_group;
    rest /= per_group;
    group_ = rest % call_.blocks.groups;
    rest /= call_.blocks.groups;
    segment_ = rest % call_.segments;
    row_ = rest / call_.segments;
    heads_ = call_.blocks.block(group_, index);
    block_ = group_ * per_group + index;
    tokens_ = call_.segment(segment_);
    if (heads_.begin == heads_.end) return;

    clear_sums();
    for_tokens_of_no_run();
    const std::int64_t part = part_length();
    const std::int64_t last = tokens_.begin < tokens_.end ? (tokens_.end - tokens_.begin - 1) / part : 0;
    for (std::int64_t p = 0; p < last; ++p) walk_forwards(p, true);
    for (std::int64_t p = last; p >= 0; --p) {
      walk_forwards(p, false);
      walk_backwards(p);
    }
  }

 private:
  // Tiles in scratch memory, see SsdScanBackwardScratch: functions and not members, so that a GPU's threads need not
  // hold two dozen addresses.

  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> tile_at(std::int64_t place, std::int64_t row) const {
    return {base_ + place, row, 1};
  }
  KOKKOS_INLINE_FUNCTION Matrix<V> b() const { return tile_at(call_.scratch.b, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> c() const { return tile_at(call_.scratch.c, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> db() const { return tile_at(call_.scratch.db, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> dc() const { return tile_at(call_.scratch.dc, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> entering() const { return tile_at(call_.scratch.entering, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> x_columns() const { return tile_at(call_.scratch.x_columns, call_.scratch.stride); }
  KOKKOS_INLINE_FUNCTION Matrix<V> dy_columns() const {
    return tile_at(call_.scratch.dy_columns, call_.scratch.stride);
  }
  KOKKOS_INLINE_FUNCTION Matrix<V> scores() const { return tile_at(call_.scratch.scores, call_.tiling.chunk); }
  KOKKOS_INLINE_FUNCTION Matrix<V> dscores() const { return tile_at(call_.scratch.dscores, call_.tiling.chunk); }
  KOKKOS_INLINE_FUNCTION Matrix<V> weights() const { return tile_at(call_.scratch.weights, call_.tiling.chunk); }
  KOKKOS_INLINE_FUNCTION Matrix<V> pairs() const { return tile_at(call_.scratch.pairs, call_.tiling.chunk); }
  KOKKOS_INLINE_FUNCTION Matrix<V> x() const { return tile_at(call_.scratch.x, call_.head_dim); }
  KOKKOS_INLINE_FUNCTION Matrix<V> dy() const { return tile_at(call_.scratch.dy, call_.head_dim); }
  KOKKOS_INLINE_FUNCTION Matrix<V> du() const { return tile_at(call_.scratch.du, call_.head_dim); }
  KOKKOS_INLINE_FUNCTION V* state_dots() const { return base_ + call_.scratch.state_dots; }
  KOKKOS_INLINE_FUNCTION V* channel_dots() const { return base_ + call_.scratch.channel_dots; }
  KOKKOS_INLINE_FUNCTION V* delta() const { return base_ + call_.scratch.delta; }
  KOKKOS_INLINE_FUNCTION V* slope() const { return base_ + call_.scratch.slope; }
  KOKKOS_INLINE_FUNCTION V* log_decay() const { return base_ + call_.scratch.log_decay; }
  KOKKOS_INLINE_FUNCTION V* high() const { return base_ + call_.scratch.high; }
  KOKKOS_INLINE_FUNCTION V* low() const { return base_ + call_.scratch.low; }
  KOKKOS_INLINE_FUNCTION V* enter() const { return base_ + call_.scratch.enter; }
  KOKKOS_INLINE_FUNCTION V* leave() const { return base_ + call_.scratch.leave; }
  KOKKOS_INLINE_FUNCTION V* from_behind() const { return base_ + call_.scratch.from_behind; }
  KOKKOS_INLINE_FUNCTION V* from_before() const { return base_ + call_.scratch.from_before; }
  KOKKOS_INLINE_FUNCTION V* between() const { return base_ + call_.scratch.between; }
  KOKKOS_INLINE_FUNCTION V* columns() const { return base_ + call_.scratch.columns; }
  KOKKOS_INLINE_FUNCTION V* skip() const { return base_ + call_.scratch.skip; }

  /// Products of what is stored in two bytes are in TF32, which holds it exactly, or nearly so what was computed of it.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::ProductKind kind() const {
    return {call_.tiling.scratch_level == 0, sizeof(T) == 2 || call_.tf32};
  }

  // Where other things are.

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t part_length() const {
    return call_.work.kept_chunks * call_.tiling.chunk;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TokenRange part_tokens(std::int64_t part) const {
    const std::int64_t begin = tokens_.begin + part * part_length();
    return {begin, begin + part_length() < tokens_.end ? begin + part_length() : tokens_.end};
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> state_of(V* states, std::int64_t set, int head) const {
    const std::int64_t place = set * call_.blocks.head_block + (head - heads_.begin);
    return {states + place * call_.head_dim * call_.d_state, call_.head_dim, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> gradient_of(int head) const {
    return state_of(call_.gradients, team_.league_rank(), head);
  }
  /// The state that enters the chunk from token t on. Chunks behind the first of a run begin a chunk's length apart,
  /// so that each has a place of its own.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> entering_state(const ScanStretch& run, std::int64_t t,
                                                                int head) const {
    const std::int64_t worker = team_.league_rank();
    if (t == run.begin) return state_of(call_.run_states, worker, head);
    const std::int64_t chunk = (t - tokens_.begin) / call_.tiling.chunk;
    const std::int64_t before = (t - call_.tiling.chunk - tokens_.begin) / part_length();
    const std::int64_t part = (t - tokens_.begin) / part_length();
    if (part != before) return state_of(call_.part_states, worker * (call_.work.parts - 1) + part - 1, head);
    return state_of(call_.states, worker * call_.work.kept_chunks + chunk % call_.work.kept_chunks, head);
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<const V> boundary(const V* states, std::int64_t index, int head) const {
    const std::int64_t place = (row_ * (call_.segments - 1) + index) * call_.heads + head;
    return {states + place * call_.head_dim * call_.d_state, call_.head_dim, 1};
  }
  /// The place of a head in the tables of partial sums.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t sum_index(int head) const {
    return (row_ * call_.segments + segment_) * call_.heads + head;
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION ScanStretch stretch_of(const Run& run) const {
    ScanStretch stretch;
    stretch.begins = run.begin >= tokens_.begin;
    stretch.ends = run.end <= tokens_.end;
    stretch.begin = stretch.begins ? run.begin : tokens_.begin;
    stretch.end = stretch.ends ? run.end : tokens_.end;
    stretch.state = run.state;
    stretch.enters = !stretch.begins || (run.has_state() && !call_.initial_states.absent());
    stretch.leaves = !stretch.ends || (run.has_state() && !call_.dfinal_states.absent());
    return stretch;
  }

  // What is done once per item.

  KOKKOS_INLINE_FUNCTION void clear_sums() const {
    for (int head = heads_.begin; head < heads_.end; ++head) {
      const std::int64_t index = sum_index(head);
      Kokkos::single(Kokkos::PerTeam(team_), [&]() {
        call_.dA_sums[index] = V(0);
        call_.ddt_bias_sums[index] = V(0);
      });
      tile::fill(team_, 1, call_.head_dim, V(0), Matrix<V>{call_.dD_sums + index * call_.head_dim, 0, 1});
    }
    team_.team_barrier();
  }

  /// Gradients of padding tokens: zeros. Through an empty run, the gradient of the state passes unchanged.
  KOKKOS_INLINE_FUNCTION void for_tokens_of_no_run() const {
    const TokenRange found = call_.runs_of(row_, tokens_);
    std::int64_t done = tokens_.begin;
    for (std::int64_t i = found.begin; i < found.end; ++i) {
      const ScanStretch run = stretch_of(call_.runs[i]);
      clear_gradients(done, run.begin);
      done = run.end;
      if (run.begin < run.end || run.state == Run::no_state || !call_.dinitial_states.given()) continue;
      for (int head = heads_.begin; head < heads_.end; ++head) {
        tile::for_each(team_, call_.head_dim, call_.d_state, [&](int p, int n) {
          call_.dinitial_states(run.state, head, p, n) =
              call_.dfinal_states.absent() ? V(0) : call_.dfinal_states(run.state, head, p, n);
        });
      }
    }
    clear_gradients(done, tokens_.end);
  }

  KOKKOS_INLINE_FUNCTION void clear_gradients(std::int64_t first, std::int64_t last) const {
    constexpr std::int64_t most = 1024;
    for (std::int64_t from = first; from < last; from += most) {
      const int count = static_cast<int>(last - from < most ? last - from : most);
      for (int head = heads_.begin; head < heads_.end; ++head) {
        tile::for_each(team_, count, call_.head_dim, [&](int j, int p) {
          call_.dx(row_, from + j, head, p) = T(0);
          if (call_.dz.given()) call_.dz(row_, from + j, head, p) = T(0);
        });
        tile::for_each(team_, 1, count, [&](int, int j) { call_.ddt(row_, call_.dt_place(from + j), head) = T(0); });
      }
      clear_group_gradients(call_.dB, call_.dB_sums, from, count);
      clear_group_gradients(call_.dC, call_.dC_sums, from, count);
    }
  }

  /// Whether heads of the group have been walked in another call.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION bool is_begun() const { return group_ < call_.begun_groups; }

  KOKKOS_INLINE_FUNCTION void clear_group_gradients(const Strided<T, 4>& out, V* sums, std::int64_t first,
                                                    int count) const {
    tile::for_each(team_, count, call_.d_state, [&](int j, int n) {
      if (sums == nullptr) {
        if (!is_begun()) out(row_, first + j, group_, n) = T(0);
      } else {
        sums[((row_ * call_.length + first + j) * call_.blocks.count() + block_) * call_.d_state + n] = V(0);
      }
    });
  }

  /// dB or dC of a chunk, from its transpose: final, or partial sums.
  KOKKOS_INLINE_FUNCTION void store_group_gradients(const Strided<T, 4>& out, V* sums, std::int64_t first, int count,
                                                    Matrix<V> from) const {
    if (sums == nullptr && is_begun()) {
      tile::for_each(team_, count, call_.d_state, [&](int j, int n) {
        T& to = out(row_, first + j, group_, n);
        to = static_cast<T>(static_cast<V>(to) + from(n, j));
      });
    } else if (sums == nullptr) {
      tile::load(team_, call_.d_state, count, from,
                 Matrix<T>{&out(row_, first, group_, 0), out.stride[1], out.stride[3]}.transposed());
    } else {
      const std::int64_t row = call_.blocks.count() * call_.d_state;
      tile::load(team_, call_.d_state, count, from,
                 Matrix<V>{sums + (row_ * call_.length + first) * row + block_ * call_.d_state, row, 1}.transposed());
    }
  }

  // The two sweeps over a part.

  /// Keeps the states that enter the part's chunks; with `cross`, also the one that enters the next part.
  KOKKOS_INLINE_FUNCTION void walk_forwards(std::int64_t part, bool cross) const {
    const TokenRange tokens = part_tokens(part);
    const std::int64_t chunk = call_.tiling.chunk;
    const std::int64_t last = call_.first_run_from(row_, tokens.end);
    for (std::int64_t i = call_.first_run_to(row_, tokens.begin + 1); i < last; ++i) {
      const ScanStretch run = stretch_of(call_.runs[i]);
      std::int64_t t = first_chunk(run, tokens.begin);
      if (t == run.begin && run.begin + chunk < run.end) load_run_states(run);
      for (; t < tokens.end && t + chunk < run.end; t += chunk) {
        if (t + chunk >= tokens.end && !cross) break;
        load_group(call_.B, t, static_cast<int>(chunk), b());
        for (int head = heads_.begin; head < heads_.end; ++head) advance_state(run, t, head);
      }
    }
  }

  KOKKOS_INLINE_FUNCTION void walk_backwards(std::int64_t part) const {
    const TokenRange tokens = part_tokens(part);
    const std::int64_t chunk = call_.tiling.chunk;
    const std::int64_t first = call_.first_run_to(row_, tokens.begin + 1);
    for (std::int64_t i = call_.first_run_from(row_, tokens.end) - 1; i >= first; --i) {
      const ScanStretch run = stretch_of(call_.runs[i]);
      const std::int64_t from = first_chunk(run, tokens.begin);
      const std::int64_t behind = run.end < tokens.end ? run.end : tokens.end;
      if (from >= behind) continue;
      for (std::int64_t t = from + (behind - from - 1) / chunk * chunk; t >= from; t -= chunk) {
        const std::int64_t left = run.end - t;
        reverse_chunk(run, t, static_cast<int>(left < chunk ? left : chunk));
      }
    }
  }

  /// The first chunk of a run that begins at or behind a token.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_chunk(const ScanStretch& run, std::int64_t token) const {
    const std::int64_t chunk = call_.tiling.chunk;
    return token <= run.begin ? run.begin : run.begin + (token - run.begin + chunk - 1) / chunk * chunk;
  }

  KOKKOS_INLINE_FUNCTION void load_run_states(const ScanStretch& run) const {
    for (int head = heads_.begin; head < heads_.end; ++head) {
      load_state(run.begins, call_.initial_states, run.state, call_.boundary_states, segment_ - 1, head,
                 entering_state(run, run.begin, head));
    }
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void load_final_gradients(const ScanStretch& run) const {
    for (int head = heads_.begin; head < heads_.end; ++head) {
      load_state(run.ends, call_.dfinal_states, run.state, call_.boundary_gradients, segment_, head, gradient_of(head));
    }
    team_.team_barrier();
  }

  /// A state, or its gradient, at an end of a run: given by the caller, or zero. Elsewhere it comes over the boundary
  /// of two segments.
  KOKKOS_INLINE_FUNCTION void load_state(bool at_end, const MixedTensor<T, 4, Exec>& given, std::int64_t state,
                                         const V* boundaries, std::int64_t index, int head, Matrix<V> to) const {
    if (!at_end) {
      tile::load(team_, call_.d_state, call_.head_dim, boundary(boundaries, index, head), to);
    } else if (given.absent() || state == Run::no_state) {
      tile::fill(team_, call_.d_state, call_.head_dim, V(0), to);
    } else {
      load_state_tile(team_, given, state, head, 0, call_.head_dim, call_.d_state, to);
    }
  }

  /// B or C of a chunk, transposed.
  KOKKOS_INLINE_FUNCTION void load_group(const Strided<const T, 4>& from, std::int64_t first, int count,
                                         Matrix<V> to) const {
    tile::load(team_, count, call_.d_state,
               Matrix<const T>{&from(row_, first, group_, 0), from.stride[1], from.stride[3]}, to.transposed());
  }
  KOKKOS_INLINE_FUNCTION void load_x(std::int64_t first, int count, int head) const {
    tile::load(team_, count, call_.head_dim,
               Matrix<const T>{&call_.x(row_, first, head, 0), call_.x.stride[1], call_.x.stride[3]}, x());
  }
  KOKKOS_INLINE_FUNCTION void load_steps(std::int64_t first, int count, int head) const {
    const V bias = call_.bias(head);
    tile::for_each(team_, 1, count, [&](int, int j) { delta()[j] = call_.raw_step(row_, first + j, head, bias); });
    team_.team_barrier();
    tile::chunk_steps(team_, tile::ChunkSteps<V>{count, call_.A(head), delta(), slope(), log_decay()}, call_.rule);
  }
  /// The factors of each token from the beginning and to the end of the chunk; the second, times the step size, takes
  /// the place of the log-decay.
  KOKKOS_INLINE_FUNCTION void chunk_factors(int count) const {
    tile::chunk_factors(team_, tile::ChunkFactors<V>{count, high(), low(), delta(), enter(), leave(), log_decay()});
  }

  /// The state behind a whole chunk, as the forward forms it. B is loaded.
  KOKKOS_INLINE_FUNCTION void advance_state(const ScanStretch& run, std::int64_t t, int head) const {
    const int count = call_.tiling.chunk;
    const Matrix<V> to = entering_state(run, t + count, head);
    load_steps(t, count, head);
    load_x(t, count, head);
    tile::load(team_, call_.d_state, call_.head_dim, entering_state(run, t, head), to);
    team_.team_barrier();
    tile::cumulative_sum(team_, count, log_decay(), high(), low());
    team_.team_barrier();
    chunk_factors(count);
    team_.team_barrier();
    tile::scale_rows(team_, count, call_.head_dim, log_decay(), x());
    team_.team_barrier();
    tile::gemm(team_, kind(), call_.d_state, call_.head_dim, count, b(), x(), enter()[count - 1], to);
    team_.team_barrier();
  }

  /// All gradients of a chunk; the gradient of the state moves from its end to its beginning.
  KOKKOS_INLINE_FUNCTION void reverse_chunk(const ScanStretch& run, std::int64_t t, int count) const {
    if (t == run.begin) load_run_states(run);
    if (t + count == run.end) load_final_gradients(run);
    load_group(call_.B, t, count, b());
    load_group(call_.C, t, count, c());
    tile::fill(team_, call_.d_state, count, V(0), db());
    tile::fill(team_, call_.d_state, count, V(0), dc());
    tile::fill(team_, count, count, V(0), dscores());
    team_.team_barrier();
    tile::gemm(team_, kind(), count, count, call_.d_state, c().transposed(), b(), V(0), scores());
    team_.team_barrier();

    for (int head = heads_.begin; head < heads_.end; ++head) reverse_head(run, t, count, head);

    tile::load(team_, count, count, dscores(), weights().transposed());
    team_.team_barrier();
    tile::gemm(team_, kind(), call_.d_state, count, count, c(), dscores(), V(1), db());
    tile::gemm(team_, kind(), call_.d_state, count, count, b(), weights(), V(1), dc());
    team_.team_barrier();
    store_group_gradients(call_.dB, call_.dB_sums, t, count, db());
    store_group_gradients(call_.dC, call_.dC_sums, t, count, dc());
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void reverse_head(const ScanStretch& run, std::int64_t t, int count, int head) const {
    const int P = call_.head_dim;
    const int N = call_.d_state;
    const Matrix<V> state = entering_state(run, t, head);
    const Matrix<V> gradient = gradient_of(head);
    const bool enters = run.enters || t > run.begin;
    const bool leaves = run.leaves || t + count < run.end;

    load_steps(t, count, head);
    load_x(t, count, head);
    load_output_gradients(t, count, head);
    team_.team_barrier();

    // The products that need no decays: <dS, B_k> and <dy_m, x_k>.
    tile::cumulative_sum(team_, count, log_decay(), high(), low());
    tile::load(team_, count, P, x(), x_columns().transposed());
    tile::column_dots(team_, count, P, x(), dy(), channel_dots());
    if (leaves) tile::gemm(team_, kind(), count, P, N, b().transposed(), gradient, V(0), du());
    team_.team_barrier();
    tile::gemm(team_, kind(), count, count, P, dy(), x_columns(), V(0), pairs());
    chunk_factors(count);
    V* dD = call_.dD_sums + sum_index(head) * P;
    tile::for_each(team_, 1, P, [&](int, int p) { dD[p] += channel_dots()[p]; });
    team_.team_barrier();

    // The decays meet them.
    tile::chunk_pairs(team_, tile::ChunkPairs<V>{count, call_.tiling.chunk, high(), low(), delta(), scores().data,
                                                 pairs().data, dscores().data, weights().data, columns(), between()});
    if (leaves) tile::scale_rows(team_, count, P, leave(), du());
    team_.team_barrier();
    if (leaves) {
      tile::row_dots(team_, count, P, du(), x(), from_behind());
      tile::scale_columns(team_, P, count, log_decay(), x_columns());
    } else {
      tile::for_each(team_, 1, count, [&](int, int k) { from_behind()[k] = V(0); });
    }
    if (call_.D.given()) tile::for_each(team_, 1, P, [&](int, int p) { skip()[p] = call_.D(head, p); });
    team_.team_barrier();
    tile::gemm(team_, kind(), count, P, count, weights().transposed(), dy(), leaves ? V(1) : V(0), du());
    if (leaves) tile::gemm(team_, kind(), N, count, P, gradient, x_columns(), V(1), db());
    team_.team_barrier();

    // dx; from here on dy is what reaches the beginning of the chunk.
    tile::scale_rows_and_skip(team_, count, P, delta(), du(), call_.D.given() ? skip() : nullptr, dy());
    team_.team_barrier();
    tile::load(team_, count, P, du(), Matrix<T>{&call_.dx(row_, t, head, 0), call_.dx.stride[1], call_.dx.stride[3]});
    tile::scale_rows(team_, count, P, enter(), dy());
    team_.team_barrier();
    tile::load(team_, count, P, dy(), dy_columns().transposed());
    team_.team_barrier();
    if (enters) {
      tile::gemm(team_, kind(), N, count, P, state, dy_columns(), V(0), entering());
      if (leaves) tile::row_dots(team_, N, P, state, gradient, state_dots());
    }
    team_.team_barrier();
    tile::gemm(team_, kind(), N, P, count, c(), dy(), leaves ? enter()[count - 1] : V(0), gradient);
    if (enters) {
      tile::column_dots_and_sum(team_, N, count, entering(), c(), from_before(), dc());
    } else {
      tile::for_each(team_, 1, count, [&](int, int m) { from_before()[m] = V(0); });
    }
    team_.team_barrier();

    store_step_gradients(t, count, head, enters && leaves);
    if (t == run.begin && run.begins && run.state != Run::no_state && call_.dinitial_states.given()) {
      store_state_tile(team_, gradient, call_.dinitial_states, run.state, head, 0, P, N);
    }
    team_.team_barrier();
  }

  /// dy, and the gradients of the gate.
  KOKKOS_INLINE_FUNCTION void load_output_gradients(std::int64_t t, int count, int head) const {
    if (!call_.z.given() && !call_.out_map.given()) {
      tile::load(team_, count, call_.head_dim,
                 Matrix<const T>{&call_.dout(row_, t, head, 0), call_.dout.stride[1], call_.dout.stride[3]}, dy());
      return;
    }
    tile::for_each(team_, count, call_.head_dim, [&](int m, int p) {
      V value = static_cast<V>(call_.dout(row_, call_.out_place(t + m), head, p));
      if (call_.z.given()) {
        const V z = static_cast<V>(call_.z(row_, t + m, head, p));
        const V y = static_cast<V>(call_.y(row_, t + m, head, p));
        call_.dz(row_, t + m, head, p) = static_cast<T>(value * y * tile::silu_derivative(z));
        value *= tile::silu(z);
      }
      dy()(m, p) = value;
    });
  }

  /// ddt, and what the chunk adds to dA and ddt_bias. The log-decay of token j acts on the pairs around it, on what
  /// the entering state contributes to the outputs from j on, on what the inputs before j contribute to the leaving
  /// state, and on the way of the entering state through the chunk.
  KOKKOS_INLINE_FUNCTION void store_step_gradients(std::int64_t t, int count, int head, bool through) const {
    Kokkos::single(Kokkos::PerTeam(team_), [&]() {
      const V A = call_.A(head);
      V outputs = V(0);
      if (through) {
        for (int n = 0; n < call_.d_state; ++n) outputs += state_dots()[n];
        outputs *= enter()[count - 1];
      }
      for (int j = count - 1; j >= 0; --j) {
        outputs += from_before()[j];
        between()[j] += outputs;
      }
      V inputs = V(0);
      V dA = V(0);
      V ddt_bias = V(0);
      for (int j = 0; j < count; ++j) {
        const V dlog_decay = between()[j] + inputs;
        inputs += delta()[j] * from_behind()[j];
        const V ddelta = A * dlog_decay + from_behind()[j] + columns()[j];
        const V ddt = slope()[j] * ddelta;
        call_.ddt(row_, call_.dt_place(t + j), head) = static_cast<T>(ddt);
        dA += delta()[j] * dlog_decay;
        ddt_bias += ddt;
      }
      call_.dA_sums[sum_index(head)] += dA;
      call_.ddt_bias_sums[sum_index(head)] += ddt_bias;
    });
  }

  const Call& call_;
  const Member& team_;
  V* base_;
  std::int64_t row_ = 0, segment_ = 0, group_ = 0, block_ = 0;
  TokenRange tokens_;
  HeadRange heads_;
};

}  // namespace krait::impl
