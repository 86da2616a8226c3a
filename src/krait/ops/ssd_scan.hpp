// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <limits>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <krait/ops/ssd_scan_tiling.hpp>

namespace krait {

/// Extents of a scan: b rows of L tokens; H heads of width P (head_dim); G groups of state width N (d_state).
struct SsdScanShape {
  std::int64_t batch = 1;
  std::int64_t length = 0;
  std::int64_t heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t groups = 1;
  std::int64_t d_state = 1;
};

struct SsdScanOptions {
  /// Tokens that are processed together, at least 1. An upper bound: shorter chunks are used where fast memory is
  /// small. The result does not depend on it beyond rounding.
  std::int64_t chunk_size = 128;
  bool dt_softplus = true;
  /// Clamp of the step size after the softplus: [dt_min, dt_max].
  double dt_min = 0.0;
  double dt_max = std::numeric_limits<double>::infinity();
  /// Stretches into which a row is cut so that they run side by side; 0 chooses from the shape and the concurrency.
  std::int64_t segments = 0;
  /// Head h reads group (h + first_head) / heads_per_group. 0 means H / G, which then must divide. Set when a rank
  /// owns heads that begin inside a group.
  std::int64_t heads_per_group = 0;
  std::int64_t first_head = 0;
  /// On a GPU with tensor cores, products of `float` operands may round them to TF32 (11 bits): several times faster,
  /// and an error near 3e-4 instead of 1e-7. Elsewhere, and for other scalars, it changes nothing.
  bool tf32 = false;
};

/// Tensors of ssd_scan(). A is accumulator_t<T>; n = runs.states(). Any strides; unit stride in the last is fast.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SsdScanArguments {
  Tensor<const T****, Exec> x;                           ///< (b, L, H, P)
  MixedTensor<T, 3, Exec> dt;                            ///< (b, L, H), before bias, softplus and clamp
  Tensor<const accumulator_t<T>*, Exec> A;               ///< (H), negative
  Tensor<const T****, Exec> B;                           ///< (b, L, G, N)
  Tensor<const T****, Exec> C;                           ///< (b, L, G, N)
  Tensor<const accumulator_t<T>*, Exec> D;               ///< (H) skip per head; optional
  Tensor<const accumulator_t<T>**, Exec> D_per_channel;  ///< (H, P) skip per channel; optional, not with D
  Tensor<const T****, Exec> z;                           ///< (b, L, H, P) gate; optional
  Tensor<const accumulator_t<T>*, Exec> dt_bias;         ///< (H), optional
  MixedTensor<T, 4, Exec> initial_states;                ///< (n, H, P, N); zero if absent
  Tensor<T****, Exec> out;                               ///< (b, L, H, P): y, gated with z; may be x without out_map
  Tensor<T****, Exec> y;                                 ///< (b, L, H, P): y before the gate; optional, only with z
  Tensor<accumulator_t<T>****, Exec> final_states;       ///< (n, H, P, N), optional
  /// Optional (L): token t of dt lies at dt(row, dt_map(t), :); token t of out is stored at out(row, out_map(t), :).
  /// The second extent of the mapped tensor is then the number of places, not L.
  Tensor<const std::int64_t*, Exec> dt_map;
  Tensor<const std::int64_t*, Exec> out_map;
};

/// Holds the shape, the options and the workspace of a scan. Not copyable; may be used again and again.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class SsdScanPlan {
 public:
  /// \param tiling  for tests and tuning: overrides the plan's own choice where it is not zero
  /// \throws ConfigError for extents or options that can never work, CapacityError when a head's tiles fit nowhere
  SsdScanPlan(const Exec& exec, const SsdScanShape& shape, const SsdScanOptions& options = {},
              const impl::SsdScanTiling& tiling = {});

  [[nodiscard]] const SsdScanShape& shape() const { return shape_; }
  /// With everything that was left open filled in (heads_per_group, segments, the chunk in use).
  [[nodiscard]] const SsdScanOptions& options() const { return options_; }
  [[nodiscard]] const impl::SsdScanTiling& tiling() const { return tiling_; }
  /// Tokens of a segment; the last one of a row may be shorter.
  [[nodiscard]] std::int64_t segment_length() const { return segment_length_; }
  [[nodiscard]] std::size_t workspace_bytes() const;
  [[nodiscard]] Workspace<Exec>& workspace() const { return workspace_; }

 private:
  SsdScanShape shape_;
  SsdScanOptions options_;
  impl::SsdScanTiling tiling_;
  std::int64_t segment_length_ = 0;
  mutable Workspace<Exec> workspace_;
};

/// The state-space scan of Mamba-2 (SSD, Dao and Gu 2024, arXiv 2405.21060), in chunks. Per row, head and run, with
/// g the head's group:
///
///     delta_t = clamp(softplus(dt_t + dt_bias), dt_min, dt_max)
///     S_t     = exp(delta_t * A) * S_{t-1} + delta_t * x_t (outer) B_t         S before the run: its initial state
///     y_t     = S_t C_t + D x_t,      out_t = y_t * silu(z_t) with a gate, y_t without
///
/// Padding tokens (in no run) get 0. Precondition: A <= 0.
///
/// \throws ShapeError when an extent disagrees with the plan or the runs, ConfigError when D and D_per_channel are
///         both given
template <Scalar T, class Exec>
void ssd_scan(const Exec& exec, const SsdScanPlan<T, Exec>& plan, const SsdScanArguments<T, Exec>& arguments,
              const SequenceRuns& runs);

}  // namespace krait
