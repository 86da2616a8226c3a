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
#include <krait/ops/ssd_scan_workspace.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/tile.hpp>
#include <limits>
#include <string>
#include <vector>

namespace krait {

namespace impl {

namespace {

/// What a kernel needs to know of the call, on any level.
template <Scalar T, class Exec>
struct ScanCall {
  using V = accumulator_t<T>;

  Strided<const T, 4> x, B, C, z;
  Strided<T, 4> out, y;
  MixedTensor<T, 3, Exec> dt;
  MixedTensor<T, 4, Exec> initial_states;
  Strided<V, 4> final_states;
  Strided<const V, 1> A, dt_bias;
  Strided<const V, 2> D;  ///< a skip per head has stride 0 along the channels
  Strided<const std::int64_t, 1> dt_map, out_map;
  const Run* runs;
  const std::int64_t* run_offsets;
  V* segment_states;
  SegmentDecay<V>* segment_decays;
  V dt_min, dt_max;
  std::int64_t length, segments, segment_length, heads_per_group, first_head;
  int heads, head_dim, d_state, head_tiles;
  SsdScanTiling tiling;
  bool dt_softplus;
};

/// A team's share: a stretch of tokens of one row, and some channels of one head. Walks chunk by chunk with the state
/// in scratch memory.
template <Scalar T, class Exec>
class ScanTeam {
 public:
  using V = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  using Call = ScanCall<T, Exec>;
  template <class E>
  using Matrix = tile::Matrix<E>;

  /// \param segments  segments of a row that are walked by this kernel
  KOKKOS_INLINE_FUNCTION ScanTeam(const Call& call, const Member& team, std::int64_t segments)
      : call_(call), team_(team) {
    std::int64_t rest = team.league_rank();
    const int head_tile = static_cast<int>(rest % call.head_tiles);
    rest /= call.head_tiles;
    head_ = static_cast<int>(rest % call.heads);
    rest /= call.heads;
    segment_ = rest % segments;
    row_ = rest / segments;
    group_ = (head_ + call.first_head) / call.heads_per_group;
    channel_ = head_tile * call.tiling.head_tile;
    width_ = call.head_dim - channel_ < call.tiling.head_tile ? call.head_dim - channel_ : call.tiling.head_tile;

    const SsdScanScratch scratch(call.tiling.chunk, call.tiling.head_tile, call.d_state, pad);
    const std::int64_t d_state = call.d_state;
    const std::int64_t chunk = call.tiling.chunk;
    const std::int64_t channels = call.tiling.head_tile;
    V* base = static_cast<V*>(team.team_scratch(call.tiling.scratch_level)
                                  .get_shmem_aligned(static_cast<std::size_t>(scratch.count) * sizeof(V), alignment));
    state_ = {base + scratch.state, channels, 1};
    b_ = {base + scratch.b, scratch.b_stride, 1};
    c_ = {base + scratch.c, d_state, 1};
    weights_ = {base + scratch.weights, chunk, 1};
    x_ = {base + scratch.x, channels, 1};
    y_ = {base + scratch.y, channels, 1};
    delta_ = base + scratch.vectors;
    log_decay_ = delta_ + chunk;
    high_ = log_decay_ + chunk;
    low_ = high_ + chunk;
    enter_ = low_ + chunk;
  }

  static constexpr int pad = is_host_execution<Exec> ? 0 : 1;
  /// Of the tiles in scratch memory, in bytes: a cache line.
  static constexpr std::size_t alignment = 64;

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t row() const { return row_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t segment() const { return segment_; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t begin() const { return segment_ * call_.segment_length; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t end() const {
    const std::int64_t next = begin() + call_.segment_length;
    return next < call_.length ? next : call_.length;
  }

  /// First run of the row that ends at or behind `token`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_run_from(std::int64_t token) const {
    std::int64_t first = call_.run_offsets[row_];
    std::int64_t last = call_.run_offsets[row_ + 1];
    while (first < last) {
      const std::int64_t middle = first + (last - first) / 2;
      if (call_.runs[middle].end < token) {
        first = middle + 1;
      } else {
        last = middle;
      }
    }
    return first;
  }

  KOKKOS_INLINE_FUNCTION void clear_state() const {
    tile::fill(team_, call_.d_state, width_, V(0), state_);
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void load_initial_state(std::int64_t index) const {
    if (call_.initial_states.absent()) {
      clear_state();
      return;
    }
    tile::for_each(team_, width_, call_.d_state,
                   [&](int p, int n) { state_(n, p) = call_.initial_states(index, head_, channel_ + p, n); });
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void store_final_state(std::int64_t index) const {
    if (!call_.final_states.given()) return;
    tile::for_each(team_, width_, call_.d_state,
                   [&](int p, int n) { call_.final_states(index, head_, channel_ + p, n) = state_(n, p); });
    team_.team_barrier();
  }

  /// The place in the workspace of what segment `segment` hands to the next one.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t map_index(std::int64_t segment) const {
    return (row_ * (call_.segments - 1) + segment) * call_.heads + head_;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION Matrix<V> segment_state(std::int64_t segment) const {
    const std::int64_t state_size = static_cast<std::int64_t>(call_.head_dim) * call_.d_state;
    const std::int64_t offset = static_cast<std::int64_t>(channel_) * call_.d_state;
    return {call_.segment_states + map_index(segment) * state_size + offset, width_, 1};
  }

  KOKKOS_INLINE_FUNCTION void load_segment_state(std::int64_t segment) const {
    tile::load(team_, call_.d_state, width_, segment_state(segment), state_);
    team_.team_barrier();
  }

  KOKKOS_INLINE_FUNCTION void store_segment_state(std::int64_t segment, const SegmentDecay<V>& decay) const {
    tile::load(team_, call_.d_state, width_, state_, segment_state(segment));
    if (channel_ == 0) {
      Kokkos::single(Kokkos::PerTeam(team_), [&]() { call_.segment_decays[map_index(segment)] = decay; });
    }
  }

  /// Padding tokens [first, last) of the row: zeros.
  KOKKOS_INLINE_FUNCTION void pad_outputs(std::int64_t first, std::int64_t last) const {
    constexpr std::int64_t most = 1024;
    for (std::int64_t from = first; from < last; from += most) {
      const int count = static_cast<int>(last - from < most ? last - from : most);
      tile::for_each(team_, count, width_, [&](int j, int p) {
        call_.out(row_, place(from + j), head_, channel_ + p) = T(0);
        if (call_.y.given()) call_.y(row_, from + j, head_, channel_ + p) = T(0);
      });
    }
  }

  /// Outputs of a chunk of tokens, and the state behind it.
  KOKKOS_INLINE_FUNCTION void advance_chunk(std::int64_t first, int count) const {
    load_chunk(first, count);
    tile::load(team_, count, call_.d_state,
               Matrix<const T>{&call_.C(row_, first, group_, 0), call_.C.stride[1], call_.C.stride[3]}, c_);
    team_.team_barrier();

    // Sums of the log-decays, and the two products that do not need them: <C_m, B_k> and C S.
    tile::cumulative_sum(team_, count, log_decay_, high_, low_);
    for (int from = 0; from < count; from += panel) {
      const int to = from + panel < count ? from + panel : count;
      tile::gemm(team_, to - from, to, call_.d_state, c_.from(from, 0), b_, V(0), weights_.from(from, 0));
    }
    tile::gemm(team_, count, width_, call_.d_state, c_, state_, V(0), y_);
    team_.team_barrier();

    tile::decay_weights(team_, count, high_, low_, delta_, weights_);
    chunk_factors(count);
    team_.team_barrier();

    tile::for_each(team_, count, width_, [&](int m, int p) {
      const V skip = call_.D.given() ? call_.D(head_, channel_ + p) * x_(m, p) : V(0);
      y_(m, p) = enter_[m] * y_(m, p) + skip;
    });
    team_.team_barrier();
    for (int from = 0; from < count; from += panel) {
      const int to = from + panel < count ? from + panel : count;
      tile::gemm(team_, to - from, width_, to, weights_.from(from, 0), x_, V(1), y_.from(from, 0));
    }
    team_.team_barrier();

    store_outputs(first, count);
    advance_state(count);
  }

  /// The state behind a chunk, without outputs. Returns the log-decay of the chunk.
  KOKKOS_INLINE_FUNCTION V summarize_chunk(std::int64_t first, int count) const {
    load_chunk(first, count);
    team_.team_barrier();
    tile::cumulative_sum(team_, count, log_decay_, high_, low_);
    team_.team_barrier();
    chunk_factors(count);
    team_.team_barrier();
    const V total = high_[count - 1] + low_[count - 1];
    advance_state(count);
    return total;
  }

 private:
  /// Rows of the products inside a chunk that are formed at a time: above the diagonal nothing is needed.
  static constexpr int panel = 32;

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t place(std::int64_t token) const {
    return call_.out_map.given() ? call_.out_map(token) : token;
  }

  /// Step sizes and log-decays, B (transposed) and x of a chunk.
  KOKKOS_INLINE_FUNCTION void load_chunk(std::int64_t first, int count) const {
    const V A = call_.A(head_);
    const V bias = call_.dt_bias.given() ? call_.dt_bias(head_) : V(0);
    tile::for_each(team_, 1, count, [&](int, int j) {
      const std::int64_t token = call_.dt_map.given() ? call_.dt_map(first + j) : first + j;
      V delta = call_.dt(row_, token, head_) + bias;
      if (call_.dt_softplus) delta = tile::softplus(delta);
      delta = delta < call_.dt_min ? call_.dt_min : (delta > call_.dt_max ? call_.dt_max : delta);
      delta_[j] = delta;
      log_decay_[j] = delta * A;
    });
    tile::load(team_, count, call_.d_state,
               Matrix<const T>{&call_.B(row_, first, group_, 0), call_.B.stride[1], call_.B.stride[3]},
               b_.transposed());
    tile::load(team_, count, width_,
               Matrix<const T>{&call_.x(row_, first, head_, channel_), call_.x.stride[1], call_.x.stride[3]}, x_);
  }

  /// The factors of each token from the beginning and to the end of the chunk; the second, which is to be met by
  /// x and delta, takes the place of the log-decays.
  KOKKOS_INLINE_FUNCTION void chunk_factors(int count) const {
    tile::for_each(team_, 1, count, [&](int, int j) {
      enter_[j] = tile::decay(high_[j] + low_[j]);
      log_decay_[j] = tile::decay((high_[count - 1] - high_[j]) + (low_[count - 1] - low_[j])) * delta_[j];
    });
  }

  KOKKOS_INLINE_FUNCTION void store_outputs(std::int64_t first, int count) const {
    tile::for_each(team_, count, width_, [&](int m, int p) {
      V value = y_(m, p);
      if (call_.y.given()) call_.y(row_, first + m, head_, channel_ + p) = static_cast<T>(value);
      if (call_.z.given()) value *= tile::silu(static_cast<V>(call_.z(row_, first + m, head_, channel_ + p)));
      call_.out(row_, place(first + m), head_, channel_ + p) = static_cast<T>(value);
    });
  }

  /// S = e^{sum} S + B^T (factors x), with the decay of the whole chunk. Changes x.
  KOKKOS_INLINE_FUNCTION void advance_state(int count) const {
    tile::scale_rows(team_, count, width_, log_decay_, x_);
    team_.team_barrier();
    tile::gemm(team_, call_.d_state, width_, count, b_, x_, enter_[count - 1], state_);
    team_.team_barrier();
  }

  const Call& call_;
  const Member& team_;
  std::int64_t row_, segment_, group_;
  int head_, channel_, width_;
  Matrix<V> state_, b_, c_, weights_, x_, y_;
  V *delta_, *log_decay_, *high_, *low_, *enter_;
};

/// The light sweep: what each segment but the last makes of the state, S_out = alpha * S_in + E. Only the tokens of
/// the run that is still open at the segment's end matter.
template <Scalar T, class Exec>
struct SummarizeSegments {
  ScanCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename Kokkos::TeamPolicy<Exec>::member_type& team) const {
    using V = accumulator_t<T>;
    const ScanTeam<T, Exec> work(call, team, call.segments - 1);
    work.clear_state();
    SegmentDecay<V> decay{V(0), false};
    // The first run that ends behind the segment, if it begins before its end.
    const std::int64_t index = work.first_run_from(work.end() + 1);
    if (index < call.run_offsets[work.row() + 1] && call.runs[index].begin < work.end()) {
      const Run run = call.runs[index];
      decay.carries = run.begin < work.begin();
      if (!decay.carries) work.load_initial_state(run.state);
      for (std::int64_t t = decay.carries ? work.begin() : run.begin; t < work.end(); t += call.tiling.chunk) {
        const std::int64_t left = work.end() - t;
        decay.log_alpha +=
            work.summarize_chunk(t, left < call.tiling.chunk ? static_cast<int>(left) : call.tiling.chunk);
      }
    }
    work.store_segment_state(work.segment(), decay);
  }
};

/// Turns what the segments make of the state into the states that enter them: S_in(s+1) = alpha_s S_in(s) + E_s, in
/// ascending order, in place.
template <class V>
struct ComposeSegments {
  V* states;
  const SegmentDecay<V>* decays;
  std::int64_t segments;  ///< those that hand something over
  std::int64_t heads;
  std::int64_t state_size;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t element = i % state_size;
    const std::int64_t head = i / state_size % heads;
    const std::int64_t row = i / state_size / heads;
    V entering = V(0);
    for (std::int64_t s = 0; s < segments; ++s) {
      const std::int64_t map = (row * segments + s) * heads + head;
      entering = advance(decays[map], entering, states[map * state_size + element]);
      states[map * state_size + element] = entering;
    }
  }
};

/// The main sweep. A team walks the runs of its segment; a run that begins in it starts from its initial state, one
/// that began earlier from the state of the segment before.
template <Scalar T, class Exec>
struct ScanSegments {
  ScanCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename Kokkos::TeamPolicy<Exec>::member_type& team) const {
    const ScanTeam<T, Exec> work(call, team, call.segments);
    const std::int64_t begin = work.begin();
    const std::int64_t end = work.end();
    std::int64_t done = begin;
    for (std::int64_t i = work.first_run_from(begin); i < call.run_offsets[work.row() + 1]; ++i) {
      const Run run = call.runs[i];
      // An empty run at the boundary of two segments belongs to the second, one at the end of the row to the last.
      if (run.begin > end || (run.begin == end && end < call.length)) break;
      if (run.begin < run.end && run.end <= begin) continue;
      const std::int64_t from = run.begin < begin ? begin : run.begin;
      const std::int64_t to = run.end < end ? run.end : end;
      work.pad_outputs(done, from);
      if (run.begin < begin) {
        work.load_segment_state(work.segment() - 1);
      } else {
        work.load_initial_state(run.state);
      }
      for (std::int64_t t = from; t < to; t += call.tiling.chunk) {
        work.advance_chunk(t, to - t < call.tiling.chunk ? static_cast<int>(to - t) : call.tiling.chunk);
      }
      if (run.end <= end) work.store_final_state(run.state);
      done = to;
    }
    work.pad_outputs(done, end);
  }
};

template <Scalar T, class Exec>
void require_valid(const SsdScanShape& shape, const SsdScanArguments<T, Exec>& a, const SequenceRuns& runs) {
  const std::int64_t b = shape.batch, L = shape.length, H = shape.heads, P = shape.head_dim, G = shape.groups,
                     N = shape.d_state;
  KRAIT_REQUIRE(ShapeError, runs.rows() == b && runs.length() == L, "krait::ssd_scan: runs are of ", runs.rows(),
                " rows of ", runs.length(), " tokens, expected ", b, " rows of ", L);
  KRAIT_REQUIRE(ConfigError, is_absent(a.D) || is_absent(a.D_per_channel),
                "krait::ssd_scan: D and D_per_channel are both given, expected one of them at most");
  KRAIT_REQUIRE(ConfigError, is_absent(a.y) || !is_absent(a.z),
                "krait::ssd_scan: y is given without z, expected with a gate only; without one, out is y");
  // A mapped tensor may have any number of places.
  const std::int64_t dt_places = is_absent(a.dt_map) ? L : a.dt.extent(1);
  const std::int64_t out_places = is_absent(a.out_map) ? L : static_cast<std::int64_t>(a.out.extent(1));
  const auto require = [](const char* name, const std::vector<std::int64_t>& given,
                          const std::vector<std::int64_t>& expected) {
    require_extents("krait::ssd_scan", name, given, expected);
  };
  const auto require_optional = [&](const char* name, const auto& view, const std::vector<std::int64_t>& expected) {
    if (!is_absent(view)) require(name, extents(view), expected);
  };
  require("x", extents(a.x), {b, L, H, P});
  require("dt", a.dt.extents(), {b, dt_places, H});
  require("A", extents(a.A), {H});
  require("B", extents(a.B), {b, L, G, N});
  require("C", extents(a.C), {b, L, G, N});
  require("out", extents(a.out), {b, out_places, H, P});
  require_optional("D", a.D, {H});
  require_optional("D_per_channel", a.D_per_channel, {H, P});
  require_optional("z", a.z, {b, L, H, P});
  require_optional("dt_bias", a.dt_bias, {H});
  require_optional("y", a.y, {b, L, H, P});
  require_optional("final_states", a.final_states, {runs.states(), H, P, N});
  require_optional("dt_map", a.dt_map, {L});
  require_optional("out_map", a.out_map, {L});
  if (!a.initial_states.absent()) require("initial_states", a.initial_states.extents(), {runs.states(), H, P, N});
}

template <Scalar T, class Exec>
ScanCall<T, Exec> make_call(const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& a,
                            const SequenceRuns& runs) {
  using V = accumulator_t<T>;
  const SsdScanShape& shape = plan.shape();
  const SsdScanOptions& options = plan.options();
  const auto table = runs.on<typename Exec::memory_space>();
  const SsdScanWorkspace<T> places(shape, options.segments);
  ScanCall<T, Exec> call;
  call.x = Strided<const T, 4>(a.x);
  call.B = Strided<const T, 4>(a.B);
  call.C = Strided<const T, 4>(a.C);
  call.z = Strided<const T, 4>(a.z);
  call.out = Strided<T, 4>(a.out);
  call.y = Strided<T, 4>(a.y);
  call.dt = a.dt;
  call.initial_states = a.initial_states;
  call.final_states = Strided<V, 4>(a.final_states);
  call.A = Strided<const V, 1>(a.A);
  call.dt_bias = Strided<const V, 1>(a.dt_bias);
  call.D = Strided<const V, 2>(a.D_per_channel);
  if (!is_absent(a.D)) {
    call.D.data = a.D.data();
    call.D.stride[0] = static_cast<std::int64_t>(a.D.stride(0));
    call.D.stride[1] = 0;
  }
  call.dt_map = Strided<const std::int64_t, 1>(a.dt_map);
  call.out_map = Strided<const std::int64_t, 1>(a.out_map);
  call.runs = table.runs.data();
  call.run_offsets = table.offsets.data();
  call.segment_states = plan.workspace().template at<V>(places.states);
  call.segment_decays = plan.workspace().template at<SegmentDecay<V>>(places.decays);
  call.dt_min = static_cast<V>(options.dt_min);
  call.dt_max = static_cast<V>(options.dt_max);
  call.length = shape.length;
  call.segments = options.segments;
  call.segment_length = plan.segment_length();
  call.heads_per_group = options.heads_per_group;
  call.first_head = options.first_head;
  call.heads = static_cast<int>(shape.heads);
  call.head_dim = static_cast<int>(shape.head_dim);
  call.d_state = static_cast<int>(shape.d_state);
  call.tiling = plan.tiling();
  call.head_tiles = (call.head_dim + call.tiling.head_tile - 1) / call.tiling.head_tile;
  call.dt_softplus = options.dt_softplus;
  return call;
}

template <Scalar T, class Exec>
Kokkos::TeamPolicy<Exec> scan_policy(const Exec& exec, const ScanCall<T, Exec>& call, std::int64_t stretches) {
  const std::int64_t teams = stretches * call.heads * call.head_tiles;
  KRAIT_REQUIRE(CapacityError, teams <= std::numeric_limits<int>::max(), "krait::ssd_scan: ", teams,
                " teams, expected less than 2^31; call with fewer rows");
  const SsdScanScratch scratch(call.tiling.chunk, call.tiling.head_tile, call.d_state, ScanTeam<T, Exec>::pad);
  Kokkos::TeamPolicy<Exec> policy(exec, static_cast<int>(teams), call.tiling.team_size);
  const std::size_t bytes =
      static_cast<std::size_t>(scratch.count) * sizeof(accumulator_t<T>) + ScanTeam<T, Exec>::alignment;
  return policy.set_scratch_size(call.tiling.scratch_level, Kokkos::PerTeam(bytes));
}

}  // namespace

}  // namespace impl

template <Scalar T, class Exec>
void ssd_scan(const Exec& exec, const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& arguments,
              const SequenceRuns& runs) {
  const char* path = impl::backend_name<Exec>();
  const std::string name = impl::operator_label<T>("krait::ssd_scan", path);
  const Kokkos::Profiling::ScopedRegion region(name);
  impl::require_valid(plan.shape(), arguments, runs);
  const std::int64_t rows = plan.shape().batch;
  if (rows == 0) return;

  const auto call = impl::make_call(plan, arguments, runs);
  if (call.segments > 1) {
    const std::int64_t handing = call.segments - 1;
    Kokkos::parallel_for(impl::operator_label<T>("krait::ssd_scan.summarize", path),
                         impl::scan_policy(exec, call, rows * handing), impl::SummarizeSegments<T, Exec>{call});
    const std::int64_t state_size = plan.shape().head_dim * plan.shape().d_state;
    Kokkos::parallel_for(
        impl::operator_label<T>("krait::ssd_scan.compose", path),
        Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, rows * call.heads * state_size),
        impl::ComposeSegments<accumulator_t<T>>{call.segment_states, call.segment_decays, handing, call.heads,
                                                state_size});
  }
  Kokkos::parallel_for(name, impl::scan_policy(exec, call, rows * call.segments), impl::ScanSegments<T, Exec>{call});
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                            \
  template void ssd_scan<T, EXEC>(const EXEC&, const SsdScanPlan<T, EXEC>&, const SsdScanArguments<T, EXEC>&, \
                                  const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
