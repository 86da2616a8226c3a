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

/// Tensors of causal_conv1d_backward(): b rows, L tokens, C channels, K taps, n states. A is accumulator_t<T>.
/// Gradients of inputs and states are overwritten; gradients of parameters are added to what is there.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct CausalConv1dBackwardArguments {
  /// \name As given to causal_conv1d()
  /// \{
  Tensor<const T***, Exec> x;                     ///< (b, L, C)
  Tensor<const accumulator_t<T>**, Exec> weight;  ///< (C, K)
  Tensor<const accumulator_t<T>*, Exec> bias;     ///< (C), optional
  MixedTensor<T, 3, Exec> initial_states;         ///< (n, C, K-1), optional
  Activation activation = Activation::silu;
  Tensor<const std::int64_t*, Exec> x_map;  ///< (L), optional; dx is stored at the same places, others are left alone
  /// \}
  Tensor<const T***, Exec> dout;             ///< (b, L, C), in sequential order
  MixedTensor<T, 3, Exec> dfinal_states;     ///< (n, C, K-1), optional: gradient of the final states
  Tensor<T***, Exec> dx;                     ///< (b, L, C), overwritten (0 at padding); must not overlap x or dout
  Tensor<accumulator_t<T>**, Exec> dweight;  ///< (C, K), optional, added to
  Tensor<accumulator_t<T>*, Exec> dbias;     ///< (C), optional, added to; only with bias
  /// (n, C, K-1), optional; 0 for states of no run; must not overlap dfinal_states
  Tensor<accumulator_t<T>***, Exec> dinitial_states;
  /// At least causal_conv1d_backward_workspace_bytes() bytes; its contents mean nothing before or after the call. Not
  /// needed without dweight and dbias.
  Tensor<std::byte*, Exec> workspace;
};

/// Bytes of workspace that causal_conv1d_backward() wants: partial sums of the parameter gradients, over blocks of
/// tokens that depend on the extents only.
template <Scalar T, class Exec>
std::size_t causal_conv1d_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t channels,
                                                   std::int64_t taps);

/// Gradients of causal_conv1d(). The convolution itself is recomputed. With q_t = dout_t * activation'(o_t):
///
///     dbias      = sum_t q_t
///     dweight(w) = sum_t q_t X(t - (K-1) + w)            X: the run, preceded by its initial state
///     dX(j)      = sum_w weight(K-1-w) q_(j+w) + dfinal  j over the run and the K-1 places before it
///
/// dX is dx inside the run and dinitial_states before it. Padding tokens contribute nothing and get dx = 0. Sums run in
/// a fixed order: same bits in every call, with any number of threads. A run that is cut in two, with states and their
/// gradients handed over in accumulator_t<T>, gives the bits of the whole in dx and dinitial_states.
/// Source of the formulas: the derivative of the definition at causal_conv1d().
///
/// \throws ShapeError when an extent disagrees, ConfigError when K is not in 1...16 or dbias is given without bias,
///         CapacityError when the workspace is too small
template <Scalar T, class Exec>
void causal_conv1d_backward(const Exec& exec, const CausalConv1dBackwardArguments<T, Exec>& arguments,
                            const SequenceRuns& runs);

}  // namespace krait
