// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <limits>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// Tensors and options of state_update(): b rows of L tokens, one or a few; H heads of width P (head_dim); G groups of
/// state width N (d_state); n states. A is accumulator_t<T>. Any strides; unit stride in the last is fast.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct StateUpdateArguments {
  Tensor<accumulator_t<T>****, Exec> states;             ///< (n, H, P, N), updated in place; n = b without state_map
  Tensor<const T****, Exec> x;                           ///< (b, L, H, P)
  MixedTensor<T, 3, Exec> dt;                            ///< (b, L, H), before bias, softplus and clamp
  Tensor<const accumulator_t<T>*, Exec> A;               ///< (H), negative
  Tensor<const T****, Exec> B;                           ///< (b, L, G, N)
  Tensor<const T****, Exec> C;                           ///< (b, L, G, N)
  Tensor<const accumulator_t<T>*, Exec> D;               ///< (H) skip per head; optional
  Tensor<const accumulator_t<T>**, Exec> D_per_channel;  ///< (H, P) skip per channel; optional, not with D
  Tensor<const T****, Exec> z;                           ///< (b, L, H, P) gate; optional
  Tensor<const accumulator_t<T>*, Exec> dt_bias;         ///< (H), optional
  Tensor<T****, Exec> out;                               ///< (b, L, H, P), overwritten; must not overlap an input
  /// Optional (b): row i continues states(state_map(i)), and no two rows the same; a row with a negative entry is
  /// padding: its outputs are 0 and it has no state. Entries are below n, which is not checked.
  Tensor<const std::int64_t*, Exec> state_map = {};

  /// \name As in SsdScanOptions
  /// \{
  bool dt_softplus = true;
  double dt_min = 0.0;
  double dt_max = std::numeric_limits<double>::infinity();
  std::int64_t heads_per_group = 0;
  std::int64_t first_head = 0;
  /// \}
};

/// The step of a decode loop: ssd_scan() of the few tokens that come next in each row, from the states in which it was
/// left and with the states behind them in their place. Per row, head and token t, with g the head's group:
///
///     delta_t = clamp(softplus(dt_t + dt_bias), dt_min, dt_max)
///     S       = exp(delta_t * A) * S + delta_t * x_t (outer) B_t
///     y_t     = S C_t + D x_t,      out_t = y_t * silu(z_t) with a gate, y_t without
///
/// Made for one to about ten tokens, whose time is that of reading and writing the states once; a prompt is faster by
/// ssd_scan(). Rows of different lengths, and states of which only some are kept, are ssd_scan()'s too. Precondition:
/// A <= 0. The same bits in every call, with any number of threads.
///
/// \param exec  everything is enqueued on this instance; nothing is fenced or allocated
/// \throws ShapeError when an extent disagrees, ConfigError for options that can never work or when D and
///         D_per_channel are both given
template <Scalar T, class Exec>
void state_update(const Exec& exec, const StateUpdateArguments<T, Exec>& arguments);

}  // namespace krait
