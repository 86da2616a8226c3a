// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/ssd_scan_segments.hpp>
#include <krait/ops/ssd_scan_team.hpp>
#include <krait/ops/ssd_scan_workspace.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/tile.hpp>
#include <string>

namespace krait {

namespace impl {

namespace {

template <Scalar T, class Exec>
struct ScanCall : SweepCall<T, Exec> {
  using SweepCall<T, Exec>::SweepCall;

  Strided<T, 4> out, y;
  Strided<accumulator_t<T>, 4> final_states;
  bool rows_are_unit;     ///< in all that is written, and the gate
  bool rows_are_aligned;  ///< and whole vectors of a GPU
  bool past_cache;        ///< see goes_past_cache()
};

/// The team that also forms outputs.
template <Scalar T, class Exec>
class ScanTeam : public SweepTeam<T, Exec> {
 public:
  using Base = SweepTeam<T, Exec>;
  using V = accumulator_t<T>;
  using typename Base::Member;
  using typename Base::Operand;
  template <class E>
  using Matrix = tile::Matrix<E>;

  KOKKOS_INLINE_FUNCTION ScanTeam(const ScanCall<T, Exec>& call, const Member& team)
      : Base(call, team, call.stretch_of(team) / call.segments, call.stretch_of(team) % call.segments, true),
        call_(call) {}

  KOKKOS_INLINE_FUNCTION void store_final_state(std::int64_t index) const {
    if (!call_.final_states.given()) return;
    store_state_tile(team_, state(), call_.final_states, index, head_, channel_, width_, call_.d_state);
    team_.team_barrier();
  }

  /// Padding tokens [first, last) of the row: zeros.
  KOKKOS_INLINE_FUNCTION void pad_outputs(std::int64_t first, std::int64_t last) const {
    constexpr std::int64_t most = 1024;
    for (std::int64_t from = first; from < last; from += most) {
      const int count = static_cast<int>(last - from < most ? last - from : most);
      tile::for_each(team_, count, width_, [&](int j, int p) {
        call_.out(row_, call_.out_place(from + j), head_, channel_ + p) = T(0);
        if (call_.y.given()) call_.y(row_, from + j, head_, channel_ + p) = T(0);
      });
    }
  }

  /// Outputs of a chunk of tokens, and the states behind it, head by head.
  KOKKOS_INLINE_FUNCTION void advance_chunk(std::int64_t first, int count) {
    std::int64_t loaded = -1;
    this->for_heads_abreast([&](int heads) {
      if (group_ != loaded) load_group(first, count);
      loaded = group_;
      if constexpr (tiles == ScanTiles::vectors) {
        advance_heads(first, count, heads);
      } else {
        advance_head(first, count);
      }
    });
  }

 private:
  using Base::base_, Base::team_, Base::row_, Base::group_, Base::first_head_, Base::head_, Base::channel_;
  using Base::state, Base::b, Base::x, Base::operands, Base::delta, Base::log_decay, Base::high, Base::low, Base::enter;
  using Base::width_, Base::tiles, Base::tokens_;

  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<Operand> c() const {
    return {operands(call_.scratch.c), call_.scratch.c_row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> scores() const {
    return {base_ + call_.scratch.scores, call_.scratch.token_row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> y() const {
    return {base_ + call_.scratch.y + this->column(), call_.scratch.y_row, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V* skip() const { return base_ + call_.scratch.skip + this->column(); }

  /// What the heads of a group share.
  KOKKOS_INLINE_FUNCTION void load_group(std::int64_t first, int count) const {
    this->load_columns(call_.B, first, count);
    tile::start_load(team_, this->kind(), count, call_.d_state,
                     Matrix<const T>{&call_.C(row_, first, group_, 0), call_.C.stride[1], call_.C.stride[3]}, c());
    if constexpr (tiles != ScanTiles::warps) form_scores(count);
  }

  KOKKOS_INLINE_FUNCTION void form_scores(int count) const {
    // Above the diagonal nothing is needed.
    constexpr int panel = 32;
    tile::await_loads(team_);
    for (int from = 0; from < count; from += panel) {
      const int to = from + panel < count ? from + panel : count;
      tile::gemm(team_, to - from, to, call_.d_state, c().from(from, 0), b(), V(0), scores().from(from, 0));
    }
  }

  KOKKOS_INLINE_FUNCTION void advance_head(std::int64_t first, int count) const {
    this->load_raw_steps(first, count);
    this->load_channels(call_.x, first, count);
    load_skip();
    tile::await_loads(team_);
    tile::scan_chunk(team_, this->kind(), chunk_of_head(count));
    store_outputs(first, count);
    team_.team_barrier();
  }

  /// Of some heads of a group, the team's own and those that follow, side by side on a host.
  KOKKOS_INLINE_FUNCTION void advance_heads(std::int64_t first, int count, int heads) {
    const bool whole_rows = tiles_are_rows(heads, call_.x);
    if (whole_rows) this->load_channel_rows(call_.x, first, count, heads);
    this->for_heads_from(heads, [&]() {
      this->load_raw_steps(first, count);
      if (!whole_rows) this->load_channels(call_.x, first, count);
      load_skip();
    });
    tile::await_loads(team_);
    tile::scan_heads(team_, tile::ScanHeads<V>{heads, &call_.A(head_), call_.A.stride[0], base_ + call_.scratch.through,
                                               coming(first, count, heads), chunk_of_head(count)});
    if (tiles_are_rows(heads, call_.out) && tiles_are_rows(heads, call_.z) && tiles_are_rows(heads, call_.y)) {
      store_output_rows(first, count, heads * width_);
    } else {
      this->for_heads_from(heads, [&]() { store_outputs(first, count); });
    }
    team_.team_barrier();
  }

  /// What the caller's memory is asked for meanwhile: where the outputs go, and the inputs of the heads that come next.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Coming coming(std::int64_t first, int count, int heads) const {
    tile::Coming rows;
    this->announce(call_.z, first, count, head_, heads, rows);
    if (!call_.past_cache && !call_.out_map.given()) this->announce(call_.out, first, count, head_, heads, rows);
    const int next = head_ + heads;
    if (next < first_head_ + call_.tiling.head_block && next < call_.heads) {
      this->announce(call_.x, first, count, next, heads, rows);
      return rows;
    }
    const std::int64_t behind = first + count;
    const std::int64_t left = tokens_.end - behind < count ? tokens_.end - behind : count;
    if (left > 0) this->announce(call_.x, behind, left, first_head_, heads, rows);
    return rows;
  }

  /// Whether channels of `heads` heads follow each other in the caller's rows as they do in the tiles.
  template <class E>
  [[nodiscard]] KOKKOS_INLINE_FUNCTION bool tiles_are_rows(int heads, const Strided<E, 4>& tensor) const {
    return !tensor.given() || (tensor.stride[3] == 1 && (heads == 1 || tensor.stride[2] == width_));
  }

  KOKKOS_INLINE_FUNCTION void load_skip() const {
    if (!call_.D.given()) return;
    V* const skips = skip();
    tile::for_each(team_, 1, width_, [&](int, int p) { skips[p] = call_.D(head_, channel_ + p); });
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::ScanChunk<V, Operand> chunk_of_head(int count) const {
    tile::ScanChunk<V, Operand> chunk;
    chunk.tokens = count;
    chunk.d_state = call_.d_state;
    chunk.channels = width_;
    chunk.row = static_cast<int>(x().row);
    chunk.token_row = static_cast<int>(scores().row);
    chunk.b_row = static_cast<int>(call_.scratch.b_row);
    chunk.c_row = static_cast<int>(c().row);
    chunk.y_row = static_cast<int>(y().row);
    chunk.state_row = static_cast<int>(call_.scratch.state_row);
    chunk.log_rate = call_.A(head_);
    chunk.rule = call_.rule;
    chunk.c = c().data;
    chunk.b = b().data;
    chunk.scores = scores().data;
    chunk.x = x().data;
    chunk.skip = call_.D.given() ? skip() : nullptr;
    chunk.state = state().data;
    chunk.y = y().data;
    chunk.steps = delta();
    chunk.weights = operands(call_.scratch.weights);
    chunk.scaled = base_ + call_.scratch.scaled + this->column();
    chunk.high = high();
    chunk.low = low();
    chunk.enter = enter();
    chunk.leave = log_decay();
    return chunk;
  }

  KOKKOS_INLINE_FUNCTION void store_outputs(std::int64_t first, int count) const {
    if constexpr (tiles == ScanTiles::vectors) {
      if (call_.rows_are_unit) return store_output_rows(first, count, width_);
    }
    if constexpr (tiles == ScanTiles::warps) {
      if (call_.rows_are_aligned) return store_output_vectors(first, count);
    }
    const Matrix<V> from = this->y();
    tile::for_each(team_, count, width_, [&](int m, int p) {
      V value = from(m, p);
      if (call_.y.given()) call_.y(row_, first + m, head_, channel_ + p) = static_cast<T>(value);
      if (call_.z.given()) value *= tile::silu(static_cast<V>(call_.z(row_, first + m, head_, channel_ + p)));
      call_.out(row_, call_.out_place(first + m), head_, channel_ + p) = static_cast<T>(value);
    });
  }

  /// The same by warps, where the rows of the caller are whole vectors.
  KOKKOS_INLINE_FUNCTION void store_output_vectors(std::int64_t first, int count) const {
    tile::cuda::store_tokens<T>(team_, count, width_, y().data, static_cast<int>(y().row), [&](int m) {
      return tile::cuda::OutputRow<T>{call_.z.given() ? &call_.z(row_, first + m, head_, channel_) : nullptr,
                                      call_.y.given() ? &call_.y(row_, first + m, head_, channel_) : nullptr,
                                      &call_.out(row_, call_.out_place(first + m), head_, channel_)};
    });
  }

  /// The same on a host, where the channels of a token lie side by side: those of the head, or of more.
  KOKKOS_INLINE_FUNCTION void store_output_rows(std::int64_t first, int count, int channels) const {
    constexpr int most = tile::store_rows_at_once;
    const Matrix<V> from = this->y();
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team_, (count + most - 1) / most), [&](int part) {
      const int begin = part * most;
      const T* z[most];
      T* y[most];
      T* out[most];
      const int tokens = count - begin < most ? count - begin : most;
      for (int i = 0; i < tokens; ++i) {
        const std::int64_t token = first + begin + i;
        if (call_.z.given()) z[i] = &call_.z(row_, token, head_, channel_);
        if (call_.y.given()) y[i] = &call_.y(row_, token, head_, channel_);
        out[i] = &call_.out(row_, call_.out_place(token), head_, channel_);
      }
      tile::store_rows(tile::OutputRows<T, V>{tokens, channels, &from(begin, 0), from.row, call_.past_cache,
                                              call_.z.given() ? z : nullptr, call_.y.given() ? y : nullptr, out});
    });
  }

  const ScanCall<T, Exec>& call_;
};

/// The main sweep. A team walks the runs of its segment; a run that begins in it starts from its initial state, one
/// that began earlier from the state of the segment before.
template <Scalar T, class Exec>
struct ScanSegments {
  ScanCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename ChipTeamPolicy<Exec>::member_type& team) const {
    ScanTeam<T, Exec> work(call, team);
    const auto [begin, end] = work.tokens();
    const TokenRange found = call.runs_of(work.row(), work.tokens());
    std::int64_t done = begin;
    for (std::int64_t i = found.begin; i < found.end; ++i) {
      const Run run = call.runs[i];
      const std::int64_t from = run.begin < begin ? begin : run.begin;
      const std::int64_t to = run.end < end ? run.end : end;
      work.for_each_head([&]() {
        work.pad_outputs(done, from);
        if (run.begin < begin) {
          work.load_boundary(work.segment() - 1);
        } else {
          work.load_state(call.initial_states, run);
        }
      });
      for (std::int64_t t = from; t < to; t += call.tiling.chunk) {
        work.advance_chunk(t, to - t < call.tiling.chunk ? static_cast<int>(to - t) : call.tiling.chunk);
      }
      if (run.end <= end && run.has_state()) work.for_each_head([&]() { work.store_final_state(run.state); });
      done = to;
    }
    work.for_each_head([&]() { work.pad_outputs(done, end); });
    if (call.past_cache) tile::finish_past_cache();
  }
};

template <Scalar T, class Exec>
void require_valid(const SsdScanShape& shape, const SsdScanArguments<T, Exec>& a, const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan";
  require_scan_inputs<T>(function, shape, a, "out", a.out, runs);
  KRAIT_REQUIRE(ConfigError, is_absent(a.y) || !is_absent(a.z), function,
                ": y is given without z, expected with a gate only; without one, out is y");
  if (!is_absent(a.y)) {
    require_extents(function, "y", extents(a.y), {shape.batch, shape.length, shape.heads, shape.head_dim});
  }
  if (!is_absent(a.final_states)) {
    require_extents(function, "final_states", extents(a.final_states),
                    {runs.states(), shape.heads, shape.head_dim, shape.d_state});
  }
}

template <Scalar T, class Exec>
ScanCall<T, Exec> make_call(const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& a,
                            const SequenceRuns& runs) {
  using V = accumulator_t<T>;
  const SsdScanWorkspace<T> places(plan.shape(), plan.options().segments);
  ScanCall<T, Exec> call(plan, a, runs);
  call.set_tiling(plan.tiling());
  call.segment_states = plan.workspace().template at<V>(places.states);
  call.segment_decays = plan.workspace().template at<SegmentDecay<V>>(places.decays);
  call.out = Strided<T, 4>(a.out);
  call.y = Strided<T, 4>(a.y);
  call.final_states = Strided<V, 4>(a.final_states);
  call.rows_are_unit = call.out.stride[3] == 1 && (!call.z.given() || call.z.stride[3] == 1) &&
                       (!call.y.given() || call.y.stride[3] == 1);
  const int tile = plan.tiling().head_tile;
  call.rows_are_aligned = is_aligned(call.out, tile) && is_aligned(call.z, tile) && is_aligned(call.y, tile) &&
                          plan.shape().head_dim % vector_elements<T> == 0;
  // What replaces x is in the caches already.
  call.past_cache = goes_past_cache(a.out) && a.out.data() != a.x.data();
  return call;
}

}  // namespace

}  // namespace impl

template <Scalar T, class Exec>
void ssd_scan(const Exec& exec, const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& arguments,
              const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan";
  const std::string name = impl::operator_label<T>(function, impl::backend_name<Exec>());
  const Kokkos::Profiling::ScopedRegion region(name);
  impl::require_valid(plan.shape(), arguments, runs);
  const std::int64_t rows = plan.shape().batch;
  if (rows == 0) return;

  const auto call = impl::make_call(plan, arguments, runs);
  if (call.segments > 1) impl::enter_segments<T, Exec>(exec, function, rows, call);
  Kokkos::parallel_for(name, impl::sweep_policy<T, Exec>(exec, function, call, rows * call.segments, true),
                       impl::ScanSegments<T, Exec>{call});
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                            \
  template void ssd_scan<T, EXEC>(const EXEC&, const SsdScanPlan<T, EXEC>&, const SsdScanArguments<T, EXEC>&, \
                                  const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
