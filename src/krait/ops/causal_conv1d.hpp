// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/activation.hpp>

namespace krait {

/// Tensors of causal_conv1d(). b rows, L tokens, C channels, K taps, n states (runs.states()).
/// A is accumulator_t<T>. Any strides; the fast path wants channels at unit stride (channel-last).
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct CausalConv1dArguments {
  Tensor<const T***, Exec> x;                     ///< (b, L, C)
  Tensor<const accumulator_t<T>**, Exec> weight;  ///< (C, K), 1 <= K <= 16; tap K-1 meets the current token
  Tensor<const accumulator_t<T>*, Exec> bias;     ///< (C), optional
  MixedTensor<T, 3, Exec> initial_states;         ///< (n, C, K-1) inputs before each run, oldest first; zero if absent
  Tensor<T***, Exec> out;                         ///< (b, L, C), overwritten; must not overlap x, or be the same tensor
  Tensor<T***, Exec> final_states;                ///< (n, C, K-1) last inputs of each run; optional
  Activation activation = Activation::silu;
  /// Optional (L): token t of every row is read at x(row, x_map(t), :). Then x may hold its tokens in any order and
  /// its second extent is the number of places, not L.
  Tensor<const std::int64_t*, Exec> x_map;
  /// Where `out` is `x`: at least causal_conv1d_workspace_bytes() bytes, aligned for T; its contents mean nothing
  /// before or after the call. Then initial_states and final_states may not share memory, and x_map may not be given.
  Tensor<std::byte*, Exec> workspace;
};

/// Bytes that causal_conv1d() wants in `workspace` to work in place: an input in 85 on hosts, with 4 taps.
template <Scalar T, class Exec>
std::size_t causal_conv1d_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t channels,
                                          std::int64_t taps);

/// Depthwise causal convolution over the tokens of each run:
///
///     o(t, c) = bias(c) + sum_{w < K} weight(c, w) * X(t - (K-1) + w, c),   out = activation(o)
///
/// where X is the run, preceded by its initial state. Runs are independent; padding tokens (in no run) get 0.
/// Source of the definition: causal-conv1d (Dao-AILab); unlike there, states and packed runs go together.
///
/// \param exec  everything is enqueued on this instance; nothing is fenced or allocated after the first call with
///              the same runs
/// \param runs  where the convolution starts afresh; runs.rows() == b and runs.length() == L
/// \throws ShapeError when an extent disagrees, ConfigError when K is not in 1...16; where `out` is `x`, ShapeError for
///         other strides, ConfigError for what cannot be done in place, CapacityError for too small a workspace
template <Scalar T, class Exec>
void causal_conv1d(const Exec& exec, const CausalConv1dArguments<T, Exec>& arguments, const SequenceRuns& runs);

}  // namespace krait
