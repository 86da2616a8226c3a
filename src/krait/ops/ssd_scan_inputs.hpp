// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the kernels of the scan, forward and backward, know of its inputs, and what is checked of them.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// Tokens [begin, end) of a row.
struct TokenRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

/// D by head and channel; a skip per head has stride 0 along the channels.
template <class V, class Arguments>
Strided<const V, 2> skip_of(const Arguments& a) {
  Strided<const V, 2> skip(a.D_per_channel);
  if (!is_absent(a.D)) {
    skip.data = a.D.data();
    skip.stride[0] = static_cast<std::int64_t>(a.D.stride(0));
    skip.stride[1] = 0;
  }
  return skip;
}

template <Scalar T, class Exec>
struct ScanInputs {
  using V = accumulator_t<T>;

  Strided<const T, 4> x, B, C, z;
  MixedTensor<T, 3, Exec> dt;
  MixedTensor<T, 4, Exec> initial_states;
  Strided<const V, 1> A, dt_bias;
  Strided<const V, 2> D;  ///< see skip_of()
  Strided<const std::int64_t, 1> dt_map, out_map;
  const Run* runs;
  const std::int64_t* run_offsets;
  tile::StepRule<V> rule;
  std::int64_t length, segments, segment_length, heads_per_group, first_head;
  int heads, head_dim, d_state;
  bool tf32;  ///< products of floats may be rounded to TF32

  ScanInputs() = default;

  /// Of a plan and arguments, forward or backward: they name the inputs alike.
  template <class Plan, class Arguments>
  ScanInputs(const Plan& plan, const Arguments& a, const SequenceRuns& table)
      : x(a.x),
        B(a.B),
        C(a.C),
        z(a.z),
        dt(a.dt),
        initial_states(a.initial_states),
        A(a.A),
        dt_bias(a.dt_bias),
        D(skip_of<V>(a)),
        dt_map(a.dt_map),
        out_map(a.out_map),
        rule{static_cast<V>(plan.options().dt_min), static_cast<V>(plan.options().dt_max), plan.options().dt_softplus},
        length(plan.shape().length),
        segments(plan.options().segments),
        segment_length(plan.segment_length()),
        heads_per_group(plan.options().heads_per_group),
        first_head(plan.options().first_head),
        heads(static_cast<int>(plan.shape().heads)),
        head_dim(static_cast<int>(plan.shape().head_dim)),
        d_state(static_cast<int>(plan.shape().d_state)),
        tf32(plan.options().tf32) {
    const auto device = table.template on<typename Exec::memory_space>();
    runs = device.runs.data();
    run_offsets = device.offsets.data();
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t dt_place(std::int64_t token) const {
    return dt_map.given() ? dt_map(token) : token;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t out_place(std::int64_t token) const {
    return out_map.given() ? out_map(token) : token;
  }

  /// The step before softplus and clamp.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V raw_step(std::int64_t row, std::int64_t token, int head, V bias) const {
    return dt(row, dt_place(token), head) + bias;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION V bias(int head) const { return dt_bias.given() ? dt_bias(head) : V(0); }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TokenRange segment(std::int64_t index) const {
    const std::int64_t begin = index * segment_length;
    return {begin, begin + segment_length < length ? begin + segment_length : length};
  }

  /// The segment of a token; of one behind the row, the last segment.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t segment_of(std::int64_t token) const {
    const std::int64_t index = token / segment_length;
    return index < segments ? index : segments - 1;
  }

  /// First run of the row that ends at or behind `token`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_run_to(std::int64_t row, std::int64_t token) const {
    return first_run(row, [&](const Run& run) { return run.end >= token; });
  }
  /// First run of the row that begins at or behind `token`.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_run_from(std::int64_t row, std::int64_t token) const {
    return first_run(row, [&](const Run& run) { return run.begin >= token; });
  }

  /// Indices of the runs that a segment walks, empty ones included: one at the boundary of two segments belongs to
  /// the second, one at the end of the row to the last.
  [[nodiscard]] KOKKOS_INLINE_FUNCTION TokenRange runs_of(std::int64_t row, const TokenRange& tokens) const {
    TokenRange found{first_run_to(row, tokens.begin),
                     tokens.end < length ? first_run_from(row, tokens.end) : run_offsets[row + 1]};
    if (found.begin < found.end && runs[found.begin].begin < tokens.begin && runs[found.begin].end == tokens.begin) {
      ++found.begin;
    }
    return found;
  }

 private:
  /// First run of the row for which `reached`, which is false before it and true behind.
  template <class Reached>
  [[nodiscard]] KOKKOS_INLINE_FUNCTION std::int64_t first_run(std::int64_t row, const Reached& reached) const {
    std::int64_t first = run_offsets[row];
    std::int64_t last = run_offsets[row + 1];
    while (first < last) {
      const std::int64_t middle = first + (last - first) / 2;
      if (reached(runs[middle])) {
        last = middle;
      } else {
        first = middle + 1;
      }
    }
    return first;
  }
};

/// What every sweep needs: the steps, and where the states start afresh.
/// \throws ShapeError for inputs that disagree with the shape or the runs
template <class Arguments>
void require_steps(const char* function, const SsdScanShape& shape, const Arguments& a, const SequenceRuns& runs) {
  const std::int64_t b = shape.batch, L = shape.length, H = shape.heads;
  KRAIT_REQUIRE(ShapeError, runs.rows() == b && runs.length() == L, function, ": runs are of ", runs.rows(),
                " rows of ", runs.length(), " tokens, expected ", b, " rows of ", L);
  // A mapped tensor may have any number of places.
  const std::int64_t places = is_absent(a.dt_map) ? L : a.dt.extent(1);
  require_extents(function, "dt", a.dt.extents(), {b, places, H});
  require_extents(function, "A", extents(a.A), {H});
  if (!is_absent(a.dt_bias)) require_extents(function, "dt_bias", extents(a.dt_bias), {H});
  if (!is_absent(a.dt_map)) require_extents(function, "dt_map", extents(a.dt_map), {L});
}

/// \throws ShapeError, ConfigError for inputs that disagree with the shape, the runs or each other
/// \param outputs  `out` or its gradient, whichever out_map is for
template <Scalar T, class Arguments, class Outputs>
void require_scan_inputs(const char* function, const SsdScanShape& shape, const Arguments& a, const char* outputs_name,
                         const Outputs& outputs, const SequenceRuns& runs) {
  const std::int64_t b = shape.batch, L = shape.length, H = shape.heads, P = shape.head_dim, G = shape.groups,
                     N = shape.d_state;
  require_steps(function, shape, a, runs);
  KRAIT_REQUIRE(ConfigError, is_absent(a.D) || is_absent(a.D_per_channel), function,
                ": D and D_per_channel are both given, expected one of them at most");
  const auto require = [&](const char* name, const std::vector<std::int64_t>& given,
                           const std::vector<std::int64_t>& expected) {
    require_extents(function, name, given, expected);
  };
  const auto require_optional = [&](const char* name, const auto& view, const std::vector<std::int64_t>& expected) {
    if (!is_absent(view)) require(name, extents(view), expected);
  };
  // A mapped tensor may have any number of places.
  const std::int64_t out_places = is_absent(a.out_map) ? L : static_cast<std::int64_t>(outputs.extent(1));
  require("x", extents(a.x), {b, L, H, P});
  require("B", extents(a.B), {b, L, G, N});
  require("C", extents(a.C), {b, L, G, N});
  require(outputs_name, extents(outputs), {b, out_places, H, P});
  require_optional("D", a.D, {H});
  require_optional("D_per_channel", a.D_per_channel, {H, P});
  require_optional("z", a.z, {b, L, H, P});
  require_optional("out_map", a.out_map, {L});
  if (!a.initial_states.absent()) require("initial_states", a.initial_states.extents(), {runs.states(), H, P, N});
}

/// Checks the shape and the options of a scan, and fills in heads_per_group.
/// \throws ConfigError for extents or options that can never work
SsdScanOptions complete_scan_options(const char* function, const SsdScanShape& shape, SsdScanOptions options);

}  // namespace krait::impl
