// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <limits>

#include <krait/core/kokkos_shims.hpp>
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

namespace impl {

/// Tokens that a thread of a host takes at a time.
inline constexpr int projection_rows = 384;

}  // namespace impl

/// Tokens that projection() takes at a time. On a host a step that follows finds the results of so many in its caches,
/// so a caller may go by blocks of them at no cost; a device has more to do the more it gets at once.
template <class Exec>
[[nodiscard]] std::int64_t projection_block(const Exec& exec) {
  if constexpr (impl::is_host_execution<Exec>) {
    return impl::projection_rows * static_cast<std::int64_t>(exec.concurrency());
  } else {
    return std::numeric_limits<std::int64_t>::max();
  }
}

}  // namespace krait
