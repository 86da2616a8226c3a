// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// Tensors of projection_backward(): b rows, L tokens, I inputs, O outputs. A is accumulator_t<T>. The gradient of the
/// input is overwritten; gradients of parameters are added to what is there.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct ProjectionBackwardArguments {
  Tensor<const T***, Exec> in;               ///< (b, L, I) as given to projection(); needed for dweight only
  Tensor<const T**, Exec> weight;            ///< (O, I) as given to projection(); needed for din only
  Tensor<const T***, Exec> dout;             ///< (b, L, O)
  Tensor<T***, Exec> din;                    ///< (b, L, I), optional, overwritten; must not overlap in or dout
  Tensor<accumulator_t<T>**, Exec> dweight;  ///< (O, I), optional, added to
  Tensor<accumulator_t<T>*, Exec> dbias;     ///< (O), optional, added to
  /// At least projection_backward_workspace_bytes() bytes, unless din alone is asked for; its contents mean nothing
  /// before or after the call.
  Tensor<std::byte*, Exec> workspace;
};

/// Bytes of workspace that projection_backward() wants: partial sums of the parameter gradients, over blocks of tokens
/// that depend on the extents only. At most some megabytes, whatever the extents.
template <Scalar T, class Exec>
std::size_t projection_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t inputs,
                                                std::int64_t outputs);

/// Gradients of projection(): din = dout * weight, dweight += dout^T * in, dbias += sum of dout over rows and tokens,
/// accumulated in accumulator_t<T>. A gradient that is not given is not formed. Uses Kokkos Kernels where it is enabled
/// and all tensors suit it (float or double, rows at unit stride), else Krait's own tile product, whose sums run in a
/// fixed order: same bits in every call, with any number of threads.
/// \throws ShapeError when an extent disagrees, CapacityError when the workspace is too small
template <Scalar T, class Exec>
void projection_backward(const Exec& exec, const ProjectionBackwardArguments<T, Exec>& arguments);

}  // namespace krait
