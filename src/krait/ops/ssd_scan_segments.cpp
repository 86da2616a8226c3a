// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/segment.hpp>
#include <krait/ops/ssd_scan_segments.hpp>
#include <string>

namespace krait::impl {

namespace {

/// What each segment but the last makes of the state, S_out = alpha * S_in + E. Only the tokens of the run that is
/// still open at the segment's end matter.
template <Scalar T, class Exec>
struct SummarizeSegments {
  SweepCall<T, Exec> call;

  KOKKOS_FUNCTION void operator()(const typename ChipTeamPolicy<Exec>::member_type& team) const {
    using V = accumulator_t<T>;
    const std::int64_t stretch = call.stretch_of(team);
    SweepTeam<T, Exec> work(call, team, stretch / (call.segments - 1), stretch % (call.segments - 1));
    const TokenRange tokens = work.tokens();
    // The first run that ends behind the segment, if it begins before its end.
    const std::int64_t index = call.first_run_to(work.row(), tokens.end + 1);
    const bool open = index < call.run_offsets[work.row() + 1] && call.runs[index].begin < tokens.end;
    const Run run = open ? call.runs[index] : Run{};
    const bool carries = open && run.begin < tokens.begin;
    const std::int64_t begin = carries ? tokens.begin : run.begin;
    work.for_each_head([&]() {
      const std::int64_t first = open ? work.first_to_reach(begin, tokens.end) : tokens.end;
      if (open && first == run.begin) {
        work.load_state(call.initial_states, run);
      } else {
        work.clear_state();
      }
      work.set_reach(first);
    });
    if (open) work.summarize(begin, tokens.end);
    work.for_each_head([&]() { work.store_boundary(work.segment(), SegmentDecay<V>{work.log_alpha(), carries}); });
  }
};

/// What each segment but the first makes of the gradient g of the state, g_in = alpha * g_out + E. Only the tokens of
/// the run that was already open at the segment's beginning matter.
template <Scalar T, class Exec>
struct SummarizeSegmentsBackward {
  SweepCall<T, Exec> call;
  Strided<const T, 4> dout;
  MixedTensor<T, 4, Exec> dfinal_states;

  KOKKOS_FUNCTION void operator()(const typename ChipTeamPolicy<Exec>::member_type& team) const {
    using V = accumulator_t<T>;
    const std::int64_t stretch = call.stretch_of(team);
    SweepTeam<T, Exec> work(call, team, stretch / (call.segments - 1), 1 + stretch % (call.segments - 1));
    const TokenRange tokens = work.tokens();
    // The first run that ends behind the segment's beginning, if it begins before it.
    const std::int64_t index = call.first_run_to(work.row(), tokens.begin + 1);
    const bool open = index < call.run_offsets[work.row() + 1] && call.runs[index].begin < tokens.begin;
    const Run run = open ? call.runs[index] : Run{};
    const bool carries = open && run.end > tokens.end;
    const std::int64_t end = carries ? tokens.end : run.end;
    work.for_each_head([&]() {
      const std::int64_t last = open ? work.last_to_reach(tokens.begin, end) : tokens.begin;
      if (open && last == run.end) {
        work.load_state(dfinal_states, run);
      } else {
        work.clear_state();
      }
      work.set_reach(last);
    });
    if (open) work.summarize_gradient(dout, tokens.begin, end);
    work.for_each_head([&]() { work.store_boundary(work.segment() - 1, SegmentDecay<V>{work.log_alpha(), carries}); });
  }
};

/// Turns what the segments make of a state into the states themselves, in place: for each boundary in ascending order
/// (descending for gradients), state = alpha * state of the boundary before + E.
template <class V>
struct ComposeSegments {
  V* states;
  const SegmentDecay<V>* decays;
  std::int64_t boundaries;
  std::int64_t heads;
  std::int64_t state_size;
  bool descending;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t element = i % state_size;
    const std::int64_t head = i / state_size % heads;
    const std::int64_t row = i / state_size / heads;
    V state = V(0);
    for (std::int64_t s = 0; s < boundaries; ++s) {
      const std::int64_t boundary = descending ? boundaries - 1 - s : s;
      const std::int64_t map = (row * boundaries + boundary) * heads + head;
      state = advance(decays[map], state, states[map * state_size + element]);
      states[map * state_size + element] = state;
    }
  }
};

template <Scalar T, class Exec>
void compose(const Exec& exec, const std::string& label, std::int64_t rows, const SweepCall<T, Exec>& call,
             bool descending) {
  const std::int64_t state_size = std::int64_t{call.head_dim} * call.d_state;
  Kokkos::parallel_for(
      label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, rows * call.heads * state_size),
      ComposeSegments<accumulator_t<T>>{call.segment_states, call.segment_decays, call.segments - 1, call.heads,
                                        state_size, descending});
}

template <Scalar T, class Exec>
std::string label(const char* name, const char* step) {
  return operator_label<T>((std::string(name) + step).c_str(), backend_name<Exec>());
}

}  // namespace

template <Scalar T, class Exec>
void enter_segments(const Exec& exec, const char* name, std::int64_t rows, const SweepCall<T, Exec>& call) {
  Kokkos::parallel_for(label<T, Exec>(name, ".summarize"), sweep_policy(exec, name, call, rows * (call.segments - 1)),
                       SummarizeSegments<T, Exec>{call});
  compose(exec, label<T, Exec>(name, ".compose"), rows, call, false);
}

template <Scalar T, class Exec>
void enter_segments_backward(const Exec& exec, const char* name, std::int64_t rows, const SweepCall<T, Exec>& call,
                             const Strided<const T, 4>& dout, const MixedTensor<T, 4, Exec>& dfinal_states) {
  Kokkos::parallel_for(label<T, Exec>(name, ".summarize_gradients"),
                       sweep_policy(exec, name, call, rows * (call.segments - 1)),
                       SummarizeSegmentsBackward<T, Exec>{call, dout, dfinal_states});
  compose(exec, label<T, Exec>(name, ".compose_gradients"), rows, call, true);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                                  \
  template void enter_segments<T, EXEC>(const EXEC&, const char*, std::int64_t, const SweepCall<T, EXEC>&);         \
  template void enter_segments_backward<T, EXEC>(const EXEC&, const char*, std::int64_t, const SweepCall<T, EXEC>&, \
                                                 const Strided<const T, 4>&, const MixedTensor<T, 4, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
