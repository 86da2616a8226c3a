// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// Tensors of projection(): b rows, L tokens, I inputs, O outputs.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct ProjectionArguments {
  Tensor<const T***, Exec> in;                 ///< (b, L, I)
  Tensor<const T**, Exec> weight;              ///< (O, I), as in torch.nn.Linear
  Tensor<const accumulator_t<T>*, Exec> bias;  ///< (O), optional
  Tensor<T***, Exec> out;                      ///< (b, L, O), overwritten
};

/// Linear map of every token, out = in * weight^T + bias, accumulated in accumulator_t<T>. Uses Kokkos Kernels where
/// it is enabled and the tensors suit it (float or double, rows at unit stride), else Krait's own tile product.
/// \throws ShapeError when an extent disagrees
template <Scalar T, class Exec>
void projection(const Exec& exec, const ProjectionArguments<T, Exec>& arguments);

}  // namespace krait
