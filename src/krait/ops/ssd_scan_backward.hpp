// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward_tiling.hpp>

namespace krait {

/// Tensors of ssd_scan_backward(). A is accumulator_t<T>; n = runs.states(). Any strides; unit stride in the last is
/// fast. Gradients of inputs and states are overwritten (0 at padding tokens); gradients of parameters are added to
/// what is there. An optional gradient that is not given is not formed.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SsdScanBackwardArguments {
  /// \name As given to ssd_scan()
  /// \{
  Tensor<const T****, Exec> x;                           ///< (b, L, H, P)
  MixedTensor<T, 3, Exec> dt;                            ///< (b, L, H)
  Tensor<const accumulator_t<T>*, Exec> A;               ///< (H)
  Tensor<const T****, Exec> B;                           ///< (b, L, G, N)
  Tensor<const T****, Exec> C;                           ///< (b, L, G, N)
  Tensor<const accumulator_t<T>*, Exec> D;               ///< (H), optional
  Tensor<const accumulator_t<T>**, Exec> D_per_channel;  ///< (H, P), optional, not with D
  Tensor<const T****, Exec> z;                           ///< (b, L, H, P), optional
  Tensor<const accumulator_t<T>*, Exec> dt_bias;         ///< (H), optional
  MixedTensor<T, 4, Exec> initial_states;                ///< (n, H, P, N), optional
  Tensor<const std::int64_t*, Exec> dt_map;              ///< (L), optional; ddt is stored at the same places
  Tensor<const std::int64_t*, Exec> out_map;             ///< (L), optional; dout is read at the same places
  /// \}
  Tensor<const T****, Exec> y;            ///< (b, L, H, P), y before the gate as stored by ssd_scan(); only with z
  Tensor<const T****, Exec> dout;         ///< (b, L, H, P)
  MixedTensor<T, 4, Exec> dfinal_states;  ///< (n, H, P, N), optional: gradient of the final states
  Tensor<T****, Exec> dx;                 ///< (b, L, H, P)
  Tensor<T***, Exec> ddt;                 ///< (b, L, H)
  Tensor<T****, Exec> dB;                 ///< (b, L, G, N), summed over the heads of a group in ascending order
  Tensor<T****, Exec> dC;                 ///< (b, L, G, N), likewise
  /// So many groups, the first ones, have gradients already, of heads in other calls: dB and dC are added to these, in
  /// accumulator_t<T>, and rounded.
  std::int64_t begun_groups = 0;
  Tensor<T****, Exec> dz;                              ///< (b, L, H, P); given together with z
  Tensor<accumulator_t<T>*, Exec> dA;                  ///< (H), optional, added to
  Tensor<accumulator_t<T>*, Exec> dD;                  ///< (H), optional, added to; only with D
  Tensor<accumulator_t<T>**, Exec> dD_per_channel;     ///< (H, P), optional, added to; only with D_per_channel
  Tensor<accumulator_t<T>*, Exec> ddt_bias;            ///< (H), optional, added to; only with dt_bias
  Tensor<accumulator_t<T>****, Exec> dinitial_states;  ///< (n, H, P, N), optional; 0 for states of no run
  /// At least SsdScanBackwardPlan::workspace_bytes() bytes, aligned for accumulator_t<T>; its contents mean nothing
  /// before or after the call. So plans that are not used at the same time, of all layers of a model, share memory.
  /// Absent: the plan allocates its own at the first call.
  Tensor<std::byte*, Exec> workspace = {};
};

namespace impl {

/// How the work of a call is dealt out. An item is a block of heads over a segment of a row; a worker is a team, which
/// walks item after item with one set of states. What items leave to be added up has a place per item.
struct SsdScanBackwardWork {
  std::int64_t items = 0;
  std::int64_t workers = 0;
  std::int64_t parts = 0;        ///< of a segment
  std::int64_t kept_chunks = 0;  ///< chunks of a part: those whose entering states a worker keeps at a time
};

}  // namespace impl

/// Holds the shape, the options and, unless calls come with one, the workspace of the backward of a scan. Not copyable;
/// may be used again and again.
///
/// The workspace holds the states that enter the chunks, for as many heads at a time as there are workers (bounded:
/// beyond about 128 MiB per thread, states are recomputed once more), and partial sums of dB and dC.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class SsdScanBackwardPlan {
 public:
  /// \param tiling  for tests and tuning: overrides the plan's own choice where it is not zero
  /// \throws ConfigError for extents or options that can never work, CapacityError when a head's tiles fit nowhere
  SsdScanBackwardPlan(const Exec& exec, const SsdScanShape& shape, const SsdScanOptions& options = {},
                      const impl::SsdScanBackwardTiling& tiling = {});

  [[nodiscard]] const SsdScanShape& shape() const { return sweep_.shape(); }
  /// With everything that was left open filled in (heads_per_group, segments, the chunk in use).
  [[nodiscard]] const SsdScanOptions& options() const { return options_; }
  [[nodiscard]] const impl::SsdScanBackwardTiling& tiling() const { return tiling_; }
  [[nodiscard]] std::int64_t segment_length() const { return sweep_.segment_length(); }
  /// What a call needs.
  [[nodiscard]] std::size_t workspace_bytes() const;
  [[nodiscard]] Workspace<Exec>& workspace() const { return workspace_; }

  /// \name What the kernels ask
  /// \{
  /// Plan of the sweep that finds the states which enter the segments.
  [[nodiscard]] const SsdScanPlan<T, Exec>& sweep() const { return sweep_; }
  [[nodiscard]] impl::HeadBlocks head_blocks() const;
  [[nodiscard]] const impl::SsdScanBackwardWork& work() const { return work_; }
  /// \}

 private:
  SsdScanOptions options_;
  impl::SsdScanBackwardTiling tiling_;
  SsdScanPlan<T, Exec> sweep_;
  impl::SsdScanBackwardWork work_;
  mutable Workspace<Exec> workspace_;
};

/// Gradients of ssd_scan(), exact and deterministic: sums run in a fixed order, without atomics. The states are
/// recomputed, in accumulator_t<T>, by the arithmetic of the forward. Per head and chunk, with a_t = delta_t A, sums
/// abar over the chunk, S_in the state that enters the chunk and dS the gradient of the state that leaves it:
///
///     with a gate:  dz = dout y silu'(z),  dy = dout silu(z);   without: dy = dout
///     dU_k   = e^(abar_last - abar_k) dS B_k + sum_(m>=k) <C_m, B_k> e^(abar_m - abar_k) dy_m
///     dx_k   = delta_k dU_k + D dy_k,       ddelta_k = <dU_k, x_k> + A da_k
///     dB, dC = the products of the same tiles with C, B, dS and S_in, summed over the heads of the group
///     da_j   = sums over the pairs (k < j <= m) that the decay of token j lies between
///
/// Source of the formulas: Dao and Gu 2024, arXiv 2405.21060, differentiated; tested by finite differences.
///
/// \throws ShapeError when an extent disagrees with the plan or the runs; ConfigError for arguments that exclude each
///         other; CapacityError when a workspace is given that is too small
template <Scalar T, class Exec>
void ssd_scan_backward(const Exec& exec, const SsdScanBackwardPlan<T, Exec>& plan,
                       const SsdScanBackwardArguments<T, Exec>& arguments, const SequenceRuns& runs);

}  // namespace krait
