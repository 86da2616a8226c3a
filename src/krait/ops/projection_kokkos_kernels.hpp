// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

namespace krait::impl {

/// Row-major matrix with unit column stride; `pitch` elements from row to row.
template <class V>
struct RowMajor {
  V* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t pitch = 0;
};

/// out = in * weight^T, or out += in * weight^T, by KokkosBlas::gemm on the given instance. T is float or double; no
/// extent and no pitch exceeds INT_MAX. Compiled where Kokkos Kernels is enabled.
template <class T, class Exec>
void kokkos_kernels_gemm(const Exec& exec, const RowMajor<const T>& in, const RowMajor<const T>& weight,
                         const RowMajor<T>& out, bool add);

}  // namespace krait::impl
