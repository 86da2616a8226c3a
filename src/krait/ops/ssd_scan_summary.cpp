// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/ssd_scan_segments.hpp>
#include <krait/ops/ssd_scan_summary.hpp>
#include <krait/ops/ssd_scan_team.hpp>
#include <krait/ops/ssd_scan_workspace.hpp>
#include <krait/ops/strided.hpp>
#include <string>

namespace krait {

namespace impl {

namespace {

/// Where the maps of the runs go.
template <Scalar T, class Exec>
struct SummaryCall : SweepCall<T, Exec> {
  using V = accumulator_t<T>;
  using SweepCall<T, Exec>::SweepCall;

  Strided<const std::int64_t, 1> slots;
  Strided<V, 4> own;
  Strided<V, 2> log_alphas;

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t slot(std::int64_t run) const {
    return slots.given() ? slots(run) : this->runs[run].state;
  }
};

/// The team that walks the part of a run in its last segment (its first, for gradients). What the segments before it
/// make of the state was found by enter_segments().
template <Scalar T, class Exec>
class SummaryTeam : public SweepTeam<T, Exec> {
 public:
  using Base = SweepTeam<T, Exec>;
  using V = accumulator_t<T>;
  using typename Base::Member;

  KOKKOS_INLINE_FUNCTION SummaryTeam(const SummaryCall<T, Exec>& call, const Member& team, const Run& run,
                                     std::int64_t segment)
      : Base(call, team, run.row, segment), call_(call) {}

  /// Log-decay of the run in segments [first, last), of those that enter_segments() walked.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V log_decay_of_boundaries(std::int64_t first, std::int64_t last) const {
    V sum = V(0);
    for (std::int64_t boundary = first; boundary < last; ++boundary) {
      sum += call_.segment_decays[call_.boundary_index(row_, boundary, head_)].log_alpha;
    }
    return sum;
  }

  KOKKOS_INLINE_FUNCTION void store(std::int64_t slot, V log_alpha) const {
    store_state_tile(team_, state(), call_.own, slot, head_, channel_, width_, call_.d_state);
    if (channel_ == 0 && call_.log_alphas.given()) {
      Kokkos::single(Kokkos::PerTeam(team_), [&]() { call_.log_alphas(slot, head_) = log_alpha; });
    }
  }

 private:
  using Base::team_, Base::row_, Base::head_, Base::channel_, Base::width_, Base::state;

  const SummaryCall<T, Exec>& call_;
};

template <Scalar T, class Exec>
struct SummarizeRuns {
  SummaryCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename ChipTeamPolicy<Exec>::member_type& team) const {
    const std::int64_t index = call.stretch_of(team);
    const std::int64_t slot = call.slot(index);
    if (slot == Run::no_state) return;
    const Run run = call.runs[index];
    const std::int64_t segment = run.end > 0 ? call.segment_of(run.end - 1) : 0;
    SummaryTeam<T, Exec> work(call, team, run, segment);
    const std::int64_t entered = work.tokens().begin;
    const std::int64_t begin = run.begin < entered ? entered : run.begin;
    work.for_each_head([&]() {
      const std::int64_t first = work.first_to_reach(begin, run.end);
      if (first == run.begin) {
        work.load_state(call.initial_states, run);
      } else if (first == entered) {
        work.load_boundary(segment - 1);
      } else {
        work.clear_state();
      }
      work.set_reach(first);
    });
    work.summarize(begin, run.end);
    const std::int64_t before = call.segment_of(run.begin);
    work.for_each_head([&]() { work.store(slot, work.log_alpha() + work.log_decay_of_boundaries(before, segment)); });
  }
};

template <Scalar T, class Exec>
struct SummarizeRunsBackward {
  SummaryCall<T, Exec> call;
  Strided<const T, 4> dout;
  MixedTensor<T, 4, Exec> dfinal_states;

  KOKKOS_FUNCTION void operator()(const typename ChipTeamPolicy<Exec>::member_type& team) const {
    const std::int64_t index = call.stretch_of(team);
    const std::int64_t slot = call.slot(index);
    if (slot == Run::no_state) return;
    const Run run = call.runs[index];
    const std::int64_t segment = call.segment_of(run.begin);
    SummaryTeam<T, Exec> work(call, team, run, segment);
    const std::int64_t left = work.tokens().end;
    const std::int64_t end = run.end > left ? left : run.end;
    work.for_each_head([&]() {
      const std::int64_t last = work.last_to_reach(run.begin, end);
      if (last == run.end) {
        work.load_state(dfinal_states, run);
      } else if (last == left) {
        work.load_boundary(segment);
      } else {
        work.clear_state();
      }
      work.set_reach(last);
    });
    work.summarize_gradient(dout, run.begin, end);
    const std::int64_t behind = run.end > left ? call.segment_of(run.end - 1) : segment;
    work.for_each_head([&]() { work.store(slot, work.log_alpha() + work.log_decay_of_boundaries(segment, behind)); });
  }
};

template <Scalar T, class Arguments, class Own>
void require_slots(const char* function, const SsdScanShape& shape, const Arguments& a, const char* own_name,
                   const Own& own, const SequenceRuns& runs) {
  const auto count = static_cast<std::int64_t>(runs.host().size());
  const std::int64_t slots = is_absent(a.slots) ? runs.states() : static_cast<std::int64_t>(own.extent(0));
  if (!is_absent(a.slots)) require_extents(function, "slots", extents(a.slots), {count});
  require_extents(function, own_name, extents(own), {slots, shape.heads, shape.head_dim, shape.d_state});
  if (!is_absent(a.log_alphas)) require_extents(function, "log_alphas", extents(a.log_alphas), {slots, shape.heads});
}

template <Scalar T, class Exec>
void require_valid(const SsdScanShape& shape, const SsdScanSummaryArguments<T, Exec>& a, const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan_summarize";
  require_steps(function, shape, a, runs);
  require_extents(function, "x", extents(a.x), {shape.batch, shape.length, shape.heads, shape.head_dim});
  require_extents(function, "B", extents(a.B), {shape.batch, shape.length, shape.groups, shape.d_state});
  if (!a.initial_states.absent()) {
    require_extents(function, "initial_states", a.initial_states.extents(),
                    {runs.states(), shape.heads, shape.head_dim, shape.d_state});
  }
  require_slots<T>(function, shape, a, "own_states", a.own_states, runs);
}

template <Scalar T, class Exec>
void require_valid(const SsdScanShape& shape, const SsdScanSummaryBackwardArguments<T, Exec>& a,
                   const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan_summarize_backward";
  require_steps(function, shape, a, runs);
  const std::int64_t places = is_absent(a.out_map) ? shape.length : static_cast<std::int64_t>(a.dout.extent(1));
  if (!is_absent(a.out_map)) require_extents(function, "out_map", extents(a.out_map), {shape.length});
  require_extents(function, "dout", extents(a.dout), {shape.batch, places, shape.heads, shape.head_dim});
  require_extents(function, "C", extents(a.C), {shape.batch, shape.length, shape.groups, shape.d_state});
  if (!a.dfinal_states.absent()) {
    require_extents(function, "dfinal_states", a.dfinal_states.extents(),
                    {runs.states(), shape.heads, shape.head_dim, shape.d_state});
  }
  require_slots<T>(function, shape, a, "own_gradients", a.own_gradients, runs);
}

/// On a host, chunks twice as long as those of a scan: without outputs there are no products inside a chunk that would
/// grow with it, and the state is read and written half as often. 64 to 128 tokens are the fastest of 32 ... 256. There
/// is room for them where a scan has its outputs.
template <Scalar T, class Exec>
SsdScanTiling summary_tiling(SsdScanTiling tiling) {
  if (scan_tiles<Exec, T> == ScanTiles::vectors && tiling.chunk % tile::scan_lanes == 0) tiling.chunk *= 2;
  return tiling;
}

template <Scalar T, class Exec, class Arguments, class Own>
SummaryCall<T, Exec> make_call(const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& inputs,
                               const Arguments& a, const Own& own, const SequenceRuns& runs) {
  using V = accumulator_t<T>;
  const SsdScanWorkspace<T> places(plan.shape(), plan.options().segments);
  SummaryCall<T, Exec> call(plan, inputs, runs);
  call.set_tiling(summary_tiling<T, Exec>(plan.tiling()));
  call.segment_states = plan.workspace().template at<V>(places.states);
  call.segment_decays = plan.workspace().template at<SegmentDecay<V>>(places.decays);
  call.slots = Strided<const std::int64_t, 1>(a.slots);
  call.own = Strided<V, 4>(own);
  call.log_alphas = Strided<V, 2>(a.log_alphas);
  return call;
}

}  // namespace

}  // namespace impl

template <Scalar T, class Exec>
void ssd_scan_summarize(const Exec& exec, const SsdScanPlan<T, Exec>& plan,
                        const SsdScanSummaryArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan_summarize";
  const std::string name = impl::operator_label<T>(function, impl::backend_name<Exec>());
  const Kokkos::Profiling::ScopedRegion region(name);
  impl::require_valid(plan.shape(), arguments, runs);
  if (runs.host().empty()) return;

  SsdScanArguments<T, Exec> inputs;
  inputs.x = arguments.x;
  inputs.dt = arguments.dt;
  inputs.A = arguments.A;
  inputs.B = arguments.B;
  inputs.dt_bias = arguments.dt_bias;
  inputs.dt_map = arguments.dt_map;
  inputs.initial_states = arguments.initial_states;
  const auto call = impl::make_call(plan, inputs, arguments, arguments.own_states, runs);
  if (call.segments > 1) impl::enter_segments<T, Exec>(exec, function, plan.shape().batch, call);
  const auto count = static_cast<std::int64_t>(runs.host().size());
  Kokkos::parallel_for(name, impl::sweep_policy<T, Exec>(exec, function, call, count),
                       impl::SummarizeRuns<T, Exec>{call});
}

template <Scalar T, class Exec>
void ssd_scan_summarize_backward(const Exec& exec, const SsdScanPlan<T, Exec>& plan,
                                 const SsdScanSummaryBackwardArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan_summarize_backward";
  const std::string name = impl::operator_label<T>(function, impl::backend_name<Exec>());
  const Kokkos::Profiling::ScopedRegion region(name);
  impl::require_valid(plan.shape(), arguments, runs);
  if (runs.host().empty()) return;

  SsdScanArguments<T, Exec> inputs;
  inputs.dt = arguments.dt;
  inputs.A = arguments.A;
  inputs.C = arguments.C;
  inputs.dt_bias = arguments.dt_bias;
  inputs.dt_map = arguments.dt_map;
  inputs.out_map = arguments.out_map;
  const auto call = impl::make_call(plan, inputs, arguments, arguments.own_gradients, runs);
  const impl::Strided<const T, 4> dout(arguments.dout);
  if (call.segments > 1) {
    impl::enter_segments_backward<T, Exec>(exec, function, plan.shape().batch, call, dout, arguments.dfinal_states);
  }
  const auto count = static_cast<std::int64_t>(runs.host().size());
  Kokkos::parallel_for(name, impl::sweep_policy<T, Exec>(exec, function, call, count),
                       impl::SummarizeRunsBackward<T, Exec>{call, dout, arguments.dfinal_states});
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                         \
  template void ssd_scan_summarize<T, EXEC>(const EXEC&, const SsdScanPlan<T, EXEC>&,                      \
                                            const SsdScanSummaryArguments<T, EXEC>&, const SequenceRuns&); \
  template void ssd_scan_summarize_backward<T, EXEC>(                                                      \
      const EXEC&, const SsdScanPlan<T, EXEC>&, const SsdScanSummaryBackwardArguments<T, EXEC>&, const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
