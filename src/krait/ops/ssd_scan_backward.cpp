// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <cstddef>
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/ops/ssd_scan_backward_sums.hpp>
#include <krait/ops/ssd_scan_backward_team.hpp>
#include <krait/ops/ssd_scan_backward_workspace.hpp>
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
struct ScanBackward {
  ScanBackwardCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename Kokkos::TeamPolicy<Exec>::member_type& team) const {
    ScanBackwardTeam<T, Exec> worker(call, team);
    for (std::int64_t item = team.league_rank(); item < call.work.items; item += call.work.workers) worker.walk(item);
  }
};

/// Zeros for states that no run names; the others are overwritten later.
template <class V>
struct ClearStates {
  Strided<V, 4> states;
  std::int64_t heads, head_dim, d_state;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    states(i / d_state / head_dim / heads, i / d_state / head_dim % heads, i / d_state % head_dim, i % d_state) = V(0);
  }
};

template <Scalar T, class Exec>
void require_valid(const SsdScanShape& shape, const SsdScanBackwardArguments<T, Exec>& a, const SequenceRuns& runs) {
  constexpr const char* function = "krait::ssd_scan_backward";
  const std::int64_t b = shape.batch, L = shape.length, H = shape.heads, P = shape.head_dim, G = shape.groups,
                     N = shape.d_state;
  require_scan_inputs<T>(function, shape, a, "dout", a.dout, runs);
  const auto require = [&](const char* name, const auto& view, const std::vector<std::int64_t>& expected) {
    require_extents(function, name, extents(view), expected);
  };
  const auto require_optional = [&](const char* name, const auto& view, const std::vector<std::int64_t>& expected) {
    if (!is_absent(view)) require(name, view, expected);
  };
  const auto require_partner = [&](const char* name, const auto& gradient, const char* partner, const auto& view) {
    KRAIT_REQUIRE(ConfigError, is_absent(gradient) || !is_absent(view), function, ": ", name, " is given without ",
                  partner, ", expected together with it only");
  };
  require_partner("y", a.y, "z", a.z);
  require_partner("dz", a.dz, "z", a.z);
  require_partner("dD", a.dD, "D", a.D);
  require_partner("dD_per_channel", a.dD_per_channel, "D_per_channel", a.D_per_channel);
  require_partner("ddt_bias", a.ddt_bias, "dt_bias", a.dt_bias);
  if (!is_absent(a.z)) {
    require("y", a.y, {b, L, H, P});
    require("dz", a.dz, {b, L, H, P});
  }
  require("dx", a.dx, {b, L, H, P});
  require("ddt", a.ddt, {b, is_absent(a.dt_map) ? L : a.dt.extent(1), H});
  require("dB", a.dB, {b, L, G, N});
  require("dC", a.dC, {b, L, G, N});
  KRAIT_REQUIRE(ShapeError, 0 <= a.begun_groups && a.begun_groups <= G, function, ": begun_groups is ", a.begun_groups,
                ", expected 0 to ", G);
  require_optional("dA", a.dA, {H});
  require_optional("dD", a.dD, {H});
  require_optional("dD_per_channel", a.dD_per_channel, {H, P});
  require_optional("ddt_bias", a.ddt_bias, {H});
  require_optional("dinitial_states", a.dinitial_states, {runs.states(), H, P, N});
  if (!a.dfinal_states.absent()) {
    require_extents(function, "dfinal_states", a.dfinal_states.extents(), {runs.states(), H, P, N});
  }
}

/// The sweep that finds the states which enter the segments, and the one that finds the gradients which leave them.
template <Scalar T, class Exec>
struct Sweeps {
  SweepCall<T, Exec> states, gradients;

  Sweeps(const SsdScanBackwardPlan<T, Exec>& plan, const SsdScanBackwardArguments<T, Exec>& a, std::byte* workspace,
         const SequenceRuns& runs)
      : states(plan, a, runs), gradients(states) {
    using V = accumulator_t<T>;
    using Decay = SegmentDecay<V>;
    const SsdScanWorkspace<T> forward(plan.shape(), plan.options().segments);
    const SsdScanBackwardWorkspace<T> backward(plan.shape(), plan.options().segments, plan.head_blocks(), plan.work());
    states.set_tiling(plan.sweep().tiling());
    states.segment_states = plan.sweep().workspace().template at<V>(forward.states);
    states.segment_decays = plan.sweep().workspace().template at<Decay>(forward.decays);
    gradients.set_tiling(plan.sweep().tiling());
    gradients.segment_states = reinterpret_cast<V*>(workspace + backward.boundary_gradients);
    gradients.segment_decays = reinterpret_cast<Decay*>(workspace + backward.boundary_decays);
  }
};

template <Scalar T, class Exec>
ScanBackwardCall<T, Exec> make_call(const SsdScanBackwardPlan<T, Exec>& plan,
                                    const SsdScanBackwardArguments<T, Exec>& a, std::byte* workspace,
                                    const SequenceRuns& runs) {
  using V = accumulator_t<T>;
  ScanBackwardCall<T, Exec> call(plan, a, runs);
  call.blocks = plan.head_blocks();
  call.work = plan.work();
  call.tiling = plan.tiling();
  call.scratch = SsdScanBackwardScratch(call.tiling.chunk, call.head_dim, call.d_state, ScanBackwardTeam<T, Exec>::pad);
  call.y = Strided<const T, 4>(a.y);
  call.dout = Strided<const T, 4>(a.dout);
  call.dfinal_states = a.dfinal_states;
  call.dx = Strided<T, 4>(a.dx);
  call.dB = Strided<T, 4>(a.dB);
  call.dC = Strided<T, 4>(a.dC);
  call.dz = Strided<T, 4>(a.dz);
  call.ddt = Strided<T, 3>(a.ddt);
  call.dinitial_states = Strided<V, 4>(a.dinitial_states);

  const SsdScanBackwardWorkspace<T> places(plan.shape(), call.segments, call.blocks, call.work);
  const auto at = [workspace](std::size_t offset) { return reinterpret_cast<V*>(workspace + offset); };
  const bool final = call.blocks.one_per_group();
  call.boundary_states =
      plan.sweep().workspace().template at<V>(SsdScanWorkspace<T>(plan.shape(), call.segments).states);
  call.boundary_gradients = at(places.boundary_gradients);
  call.states = at(places.states);
  call.part_states = at(places.part_states);
  call.run_states = at(places.run_states);
  call.gradients = at(places.gradients);
  call.dB_sums = final ? nullptr : at(places.dB);
  call.dC_sums = final ? nullptr : at(places.dC);
  call.begun_groups = a.begun_groups;
  call.dA_sums = at(places.dA);
  call.ddt_bias_sums = at(places.ddt_bias);
  call.dD_sums = at(places.dD);
  return call;
}

/// The caller's workspace, or the plan's own.
template <Scalar T, class Exec>
std::byte* workspace_of(const Exec& exec, const SsdScanBackwardPlan<T, Exec>& plan,
                        const SsdScanBackwardArguments<T, Exec>& a) {
  constexpr const char* name = "krait::ssd_scan_backward";
  const std::size_t bytes = plan.workspace_bytes();
  if (is_absent(a.workspace)) {
    plan.workspace().reserve(exec, bytes);
    return plan.workspace().template at<std::byte>(0);
  }
  KRAIT_REQUIRE(CapacityError, a.workspace.size() >= bytes, name, ": workspace has ", a.workspace.size(),
                " bytes, expected at least ", bytes);
  KRAIT_REQUIRE(ShapeError,
                a.workspace.stride(0) == 1 &&
                    reinterpret_cast<std::uintptr_t>(a.workspace.data()) % alignof(accumulator_t<T>) == 0,
                name, ": workspace must be contiguous and begin at a multiple of ", alignof(accumulator_t<T>),
                " bytes");
  return a.workspace.data();
}

template <Scalar T, class Exec>
Kokkos::TeamPolicy<Exec> backward_policy(const Exec& exec, const ScanBackwardCall<T, Exec>& call) {
  using Team = ScanBackwardTeam<T, Exec>;
  Kokkos::TeamPolicy<Exec> policy(exec, static_cast<int>(call.work.workers), call.tiling.team_size);
  const std::size_t bytes = static_cast<std::size_t>(call.scratch.count) * sizeof(accumulator_t<T>) + Team::alignment;
  return policy.set_scratch_size(call.tiling.scratch_level, Kokkos::PerTeam(bytes));
}

}  // namespace

}  // namespace impl

template <Scalar T, class Exec>
void ssd_scan_backward(const Exec& exec, const SsdScanBackwardPlan<T, Exec>& plan,
                       const SsdScanBackwardArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  using V = accumulator_t<T>;
  using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;
  constexpr const char* function = "krait::ssd_scan_backward";
  const char* path = impl::backend_name<Exec>();
  const auto label = [&](const char* step) {
    return impl::operator_label<T>((std::string(function) + step).c_str(), path);
  };
  const Kokkos::Profiling::ScopedRegion region(label(""));
  const SsdScanShape& shape = plan.shape();
  impl::require_valid(shape, arguments, runs);

  std::byte* const workspace = impl::workspace_of(exec, plan, arguments);
  const auto call = impl::make_call(plan, arguments, workspace, runs);
  if (call.dinitial_states.given()) {
    Kokkos::parallel_for(label(".clear"), Range(exec, 0, runs.states() * shape.heads * shape.head_dim * shape.d_state),
                         impl::ClearStates<V>{call.dinitial_states, shape.heads, shape.head_dim, shape.d_state});
  }
  if (shape.batch == 0) return;
  if (call.segments > 1) {
    const impl::Sweeps<T, Exec> sweeps(plan, arguments, workspace, runs);
    impl::enter_segments<T, Exec>(exec, function, shape.batch, sweeps.states);
    impl::enter_segments_backward<T, Exec>(exec, function, shape.batch, sweeps.gradients, call.dout,
                                           call.dfinal_states);
  }
  Kokkos::parallel_for(label(""), impl::backward_policy(exec, call), impl::ScanBackward<T, Exec>{call});
  if (call.dB_sums != nullptr) {
    Kokkos::parallel_for(label(".sum_blocks"),
                         Range(exec, 0, shape.batch * shape.length * shape.groups * shape.d_state),
                         impl::SumBlocks<T, Exec>{call.dB, call.dC, call.dB_sums, call.dC_sums, call.blocks,
                                                  shape.length, shape.d_state, call.begun_groups});
  }
  const impl::SumParameters<V> sum{impl::Strided<V, 1>(arguments.dA),
                                   impl::Strided<V, 1>(arguments.ddt_bias),
                                   impl::Strided<V, 1>(arguments.dD),
                                   impl::Strided<V, 2>(arguments.dD_per_channel),
                                   call.dA_sums,
                                   call.ddt_bias_sums,
                                   call.dD_sums,
                                   shape.batch * call.segments,
                                   shape.heads,
                                   shape.head_dim};
  Kokkos::parallel_for(label(".sum_parameters"), Range(exec, 0, shape.heads), sum);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                           \
  template void ssd_scan_backward<T, EXEC>(const EXEC&, const SsdScanBackwardPlan<T, EXEC>&, \
                                           const SsdScanBackwardArguments<T, EXEC>&, const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
