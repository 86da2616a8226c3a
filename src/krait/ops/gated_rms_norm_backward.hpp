// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// Tensors of gated_rms_norm_backward(): b rows, L tokens, d features, d / group_size groups. A is accumulator_t<T>.
/// Gradients of x and z are overwritten; gradients of parameters are added to what is there.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct GatedRmsNormBackwardArguments {
  /// \name As given to gated_rms_norm()
  /// \{
  Tensor<const T***, Exec> x;                    ///< (b, L, d)
  Tensor<const T***, Exec> z;                    ///< (b, L, d), optional
  Tensor<const accumulator_t<T>*, Exec> weight;  ///< (d); absent together with `normalize == false` only
  Tensor<const accumulator_t<T>*, Exec> bias;    ///< (d), optional
  std::int64_t group_size = 0;
  bool norm_before_gate = false;
  bool normalize = true;
  double epsilon = 1e-5;
  /// \}
  Tensor<const accumulator_t<T>***, Exec> rstd;  ///< (b, L, groups) as stored by gated_rms_norm(); recomputed if absent
  Tensor<const T***, Exec> dout;                 ///< (b, L, d)
  Tensor<T***, Exec> dx;                         ///< (b, L, d); may be dout itself
  Tensor<T***, Exec> dz;                         ///< (b, L, d); given together with z
  Tensor<accumulator_t<T>*, Exec> dweight;       ///< (d), optional, added to; only with weight
  Tensor<accumulator_t<T>*, Exec> dbias;         ///< (d), optional, added to; only with bias
  Tensor<T***, Exec> out;                        ///< (b, L, d), optional: the output of the forward once more
  /// At least gated_rms_norm_backward_workspace_bytes() bytes; its contents mean nothing before or after the call. Not
  /// needed without dweight and dbias.
  Tensor<std::byte*, Exec> workspace;
};

/// Bytes of workspace that gated_rms_norm_backward() wants: partial sums of the parameter gradients, over blocks of
/// tokens that depend on the extents only.
template <Scalar T, class Exec>
std::size_t gated_rms_norm_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t features);

/// Gradients of gated_rms_norm(). Per token and group, with v = x (norm_before_gate) or x * silu(z), r the stored
/// reciprocal root, n = v r and dy = dout * silu(z) (norm_before_gate) or dout:
///
///     c = mean_group(n weight dy),   dv = (weight dy - n c) r,   dweight = sum dy n,   dbias = sum dy
///     norm_before_gate:  dx = dv,            dz = dout (n weight + bias) silu'(z)
///     gate first:        dx = dv silu(z),    dz = dv x silu'(z)
///
/// Sums run in a fixed order: same bits in every call, with any number of threads.
/// Source of the formulas: the derivative of the definition at gated_rms_norm().
///
/// \throws ShapeError when an extent disagrees, ConfigError when group_size does not divide d or a gradient is given
/// for
///         what is not, CapacityError when the workspace is too small
template <Scalar T, class Exec>
void gated_rms_norm_backward(const Exec& exec, const GatedRmsNormBackwardArguments<T, Exec>& arguments);

}  // namespace krait
