// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/activation.hpp>

namespace krait {

/// Tensors of causal_conv1d_update(): b rows of L tokens, one or a few; C channels, K taps, n states. A is
/// accumulator_t<T>. Any strides; the fast path wants channels of x and out at unit stride.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct CausalConv1dUpdateArguments {
  /// (n, C, K-1) inputs before the tokens, oldest first, as causal_conv1d() leaves them in final_states; in the end
  /// those before the token that comes next. n = b without state_map.
  Tensor<T***, Exec> states;
  Tensor<const T***, Exec> x;                     ///< (b, L, C)
  Tensor<const accumulator_t<T>**, Exec> weight;  ///< (C, K), 1 <= K <= 16; tap K-1 meets the current token
  Tensor<const accumulator_t<T>*, Exec> bias;     ///< (C), optional
  Tensor<T***, Exec> out;                         ///< (b, L, C), overwritten; must not overlap x
  Activation activation = Activation::silu;
  /// Optional (b): row i continues states(state_map(i)), and no two rows the same; a row with a negative entry is
  /// padding: its outputs are 0 and it has no state. Entries are below n, which is not checked.
  Tensor<const std::int64_t*, Exec> state_map = {};
};

/// The step of a decode loop: causal_conv1d() of the few tokens that come next in each row, behind the inputs in its
/// state, and with the state moved on in its place.
///
/// \param exec  everything is enqueued on this instance; nothing is fenced or allocated
/// \throws ShapeError when an extent disagrees, ConfigError when K is not in 1...16
template <Scalar T, class Exec>
void causal_conv1d_update(const Exec& exec, const CausalConv1dUpdateArguments<T, Exec>& arguments);

}  // namespace krait
