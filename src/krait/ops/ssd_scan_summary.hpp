// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a stretch of a sequence makes of the state, without its outputs: what ranks hand to each other.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/ssd_scan.hpp>

namespace krait {

/// Tensors of ssd_scan_summarize(). A is accumulator_t<T>; n = runs.states(); m slots. Inputs as of ssd_scan().
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SsdScanSummaryArguments {
  Tensor<const T****, Exec> x;                    ///< (b, L, H, P)
  MixedTensor<T, 3, Exec> dt;                     ///< (b, L, H)
  Tensor<const accumulator_t<T>*, Exec> A;        ///< (H), negative
  Tensor<const T****, Exec> B;                    ///< (b, L, G, N)
  Tensor<const accumulator_t<T>*, Exec> dt_bias;  ///< (H), optional
  Tensor<const std::int64_t*, Exec> dt_map;       ///< (L), optional
  MixedTensor<T, 4, Exec> initial_states;         ///< (n, H, P, N); zero if absent, and for runs without a state
  Tensor<const std::int64_t*, Exec> slots;        ///< optional: run i, in the order of runs.host(), has slot slots(i)
  Tensor<accumulator_t<T>****, Exec> own_states;  ///< (m, H, P, N): E
  Tensor<accumulator_t<T>**, Exec> log_alphas;    ///< (m, H), optional: the run's sum of delta A
};

/// Tensors of ssd_scan_summarize_backward(). A is accumulator_t<T>; n = runs.states(); m slots. Inputs as of
/// ssd_scan_backward().
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SsdScanSummaryBackwardArguments {
  MixedTensor<T, 3, Exec> dt;                     ///< (b, L, H)
  Tensor<const accumulator_t<T>*, Exec> A;        ///< (H), negative
  Tensor<const T****, Exec> C;                    ///< (b, L, G, N)
  Tensor<const accumulator_t<T>*, Exec> dt_bias;  ///< (H), optional
  Tensor<const std::int64_t*, Exec> dt_map;       ///< (L), optional
  Tensor<const std::int64_t*, Exec> out_map;      ///< (L), optional: dout is read at these places
  Tensor<const T****, Exec> dout;                 ///< (b, L, H, P): gradient of y, without a gate
  MixedTensor<T, 4, Exec> dfinal_states;          ///< (n, H, P, N); zero if absent, and for runs without a state
  Tensor<const std::int64_t*, Exec> slots;        ///< optional: run i, in the order of runs.host(), has slot slots(i)
  Tensor<accumulator_t<T>****, Exec> own_gradients;  ///< (m, H, P, N): E
  Tensor<accumulator_t<T>**, Exec> log_alphas;       ///< (m, H), optional: the run's sum of delta A
};

/// The map S_out = alpha S_in + E by which each run acts on the state of each head: E is the state that leaves the run
/// when its initial state (zero without one) enters, log alpha the sum of its log-decays delta_t A. So runs that follow
/// each other compose (segment.hpp): with E and alpha of each, the states between them are known before any output is.
///
/// A run stores to slot `slots(i)`, without `slots` to slot `run.state`; a run without slot is not looked at, and slots
/// of no run keep what they held. No two runs may have the same slot.
///
/// Tokens from which nothing reaches the end of the run are not read: those before the chunk from whose beginning on
/// the log-decays sum to less than -104 (double: -746), where exp() is 0 and not even denormal. log alpha is then that
/// sum, and initial states are not read either. With the decays of an initialised model most heads so visit a short
/// tail.
///
/// Precondition: A <= 0. Uses the workspace of the plan, allocates nothing.
///
/// \param plan  of the rows that hold the runs, as for ssd_scan(): they may share it
/// \throws ShapeError when an extent disagrees with the plan or the runs
template <Scalar T, class Exec>
void ssd_scan_summarize(const Exec& exec, const SsdScanPlan<T, Exec>& plan,
                        const SsdScanSummaryArguments<T, Exec>& arguments, const SequenceRuns& runs);

/// The mirror image, for gradients of the state: g_in = alpha g_out + E, where E is the gradient of the state that
/// enters the run when its dfinal_states (zero without one) come from behind; alpha as in ssd_scan_summarize(). Tokens
/// whose gradient does not reach the beginning of the run are not read.
///
/// \param plan  of the rows that hold the runs; SsdScanBackwardPlan::sweep() is one
/// \throws ShapeError when an extent disagrees with the plan or the runs
template <Scalar T, class Exec>
void ssd_scan_summarize_backward(const Exec& exec, const SsdScanPlan<T, Exec>& plan,
                                 const SsdScanSummaryBackwardArguments<T, Exec>& arguments, const SequenceRuns& runs);

}  // namespace krait
