// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// Tensors of gated_rms_norm(): b rows, L tokens, d features. A is accumulator_t<T>.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct GatedRmsNormArguments {
  Tensor<const T***, Exec> x;                    ///< (b, L, d)
  Tensor<const T***, Exec> z;                    ///< (b, L, d) gate; optional
  Tensor<const accumulator_t<T>*, Exec> weight;  ///< (d); absent together with `normalize == false` only
  Tensor<const accumulator_t<T>*, Exec> bias;    ///< (d), optional
  Tensor<T***, Exec> out;                        ///< (b, L, d); may be x or z itself
  /// (b, L, d / group_size), optional: 1 / sqrt(mean square + epsilon) of each group, 1 without `normalize`; for
  /// gated_rms_norm_backward().
  Tensor<accumulator_t<T>***, Exec> rstd = {};
  std::int64_t group_size = 0;  ///< features that share a mean square; divides d; 0 means d
  bool norm_before_gate = false;
  bool normalize = true;  ///< false: only the gate, x * silu(z) (a mixer without rmsnorm)
  double epsilon = 1e-5;
};

/// Root-mean-square norm over groups of features, with a SiLU gate before it (Mamba-2) or after it:
///
///     gate first:        v = x * silu(z),   out = v / sqrt(mean_group(v^2) + epsilon) * weight + bias
///     norm_before_gate:  out = (x / sqrt(mean_group(x^2) + epsilon) * weight + bias) * silu(z)
///
/// \throws ShapeError when an extent disagrees, ConfigError when group_size does not divide d
template <Scalar T, class Exec>
void gated_rms_norm(const Exec& exec, const GatedRmsNormArguments<T, Exec>& arguments);

}  // namespace krait
