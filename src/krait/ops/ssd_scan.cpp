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
};

/// The team that also forms outputs.
template <Scalar T, class Exec>
class ScanTeam : public SweepTeam<T, Exec> {
 public:
  using Base = SweepTeam<T, Exec>;
  using V = accumulator_t<T>;
  using typename Base::Member;
  template <class E>
  using Matrix = tile::Matrix<E>;

  KOKKOS_INLINE_FUNCTION ScanTeam(const ScanCall<T, Exec>& call, const Member& team)
      : Base(call, team, call.stretch_of(team) / call.segments, call.stretch_of(team) % call.segments), call_(call) {
    const SsdScanScratch scratch(call.tiling.chunk, call.tiling.head_tile, call.d_state, Base::pad);
    c_ = {base_ + scratch.c, call.d_state, 1};
    weights_ = {base_ + scratch.weights, call.tiling.chunk, 1};
    y_ = {base_ + scratch.y, call.tiling.head_tile, 1};
  }

  KOKKOS_INLINE_FUNCTION void store_final_state(std::int64_t index) const {
    if (!call_.final_states.given()) return;
    tile::for_each(team_, width_, call_.d_state,
                   [&](int p, int n) { call_.final_states(index, head_, channel_ + p, n) = state_(n, p); });
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

  /// Outputs of a chunk of tokens, and the state behind it.
  KOKKOS_INLINE_FUNCTION void advance_chunk(std::int64_t first, int count) const {
    this->load_steps(first, count);
    this->load_columns(call_.B, first, count);
    this->load_channels(call_.x, first, count);
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
    this->chunk_factors(count);
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
    this->advance_state(log_decay_, count);
  }

 private:
  using Base::base_, Base::team_, Base::row_, Base::group_, Base::head_, Base::channel_, Base::width_;
  using Base::state_, Base::b_, Base::x_, Base::delta_, Base::log_decay_, Base::high_, Base::low_, Base::enter_;

  /// Rows of the products inside a chunk that are formed at a time: above the diagonal nothing is needed.
  static constexpr int panel = 32;

  KOKKOS_INLINE_FUNCTION void store_outputs(std::int64_t first, int count) const {
    tile::for_each(team_, count, width_, [&](int m, int p) {
      V value = y_(m, p);
      if (call_.y.given()) call_.y(row_, first + m, head_, channel_ + p) = static_cast<T>(value);
      if (call_.z.given()) value *= tile::silu(static_cast<V>(call_.z(row_, first + m, head_, channel_ + p)));
      call_.out(row_, call_.out_place(first + m), head_, channel_ + p) = static_cast<T>(value);
    });
  }

  const ScanCall<T, Exec>& call_;
  Matrix<V> c_, weights_, y_;
};

/// The main sweep. A team walks the runs of its segment; a run that begins in it starts from its initial state, one
/// that began earlier from the state of the segment before.
template <Scalar T, class Exec>
struct ScanSegments {
  ScanCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename Kokkos::TeamPolicy<Exec>::member_type& team) const {
    const ScanTeam<T, Exec> work(call, team);
    const auto [begin, end] = work.tokens();
    const TokenRange found = call.runs_of(work.row(), work.tokens());
    std::int64_t done = begin;
    for (std::int64_t i = found.begin; i < found.end; ++i) {
      const Run run = call.runs[i];
      const std::int64_t from = run.begin < begin ? begin : run.begin;
      const std::int64_t to = run.end < end ? run.end : end;
      work.pad_outputs(done, from);
      if (run.begin < begin) {
        work.load_boundary(work.segment() - 1);
      } else {
        work.load_state(call.initial_states, run);
      }
      for (std::int64_t t = from; t < to; t += call.tiling.chunk) {
        work.advance_chunk(t, to - t < call.tiling.chunk ? static_cast<int>(to - t) : call.tiling.chunk);
      }
      if (run.end <= end && run.has_state()) work.store_final_state(run.state);
      done = to;
    }
    work.pad_outputs(done, end);
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
  Kokkos::parallel_for(name, impl::sweep_policy<T, Exec>(exec, function, call, rows * call.segments),
                       impl::ScanSegments<T, Exec>{call});
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                            \
  template void ssd_scan<T, EXEC>(const EXEC&, const SsdScanPlan<T, EXEC>&, const SsdScanArguments<T, EXEC>&, \
                                  const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
