// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection_kokkos_kernels.hpp>

#include <KokkosBlas3_gemm.hpp>
#include <utility>

#include <krait/core/instantiate.hpp>

namespace krait::impl {
namespace {

template <class V, class Exec>
using ColumnMajor =
    Kokkos::View<V**, Kokkos::LayoutLeft, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

/// What is stored row-major with a pitch is a column-major matrix of the transpose, with a leading dimension; of the
/// two layouts only LayoutLeft keeps its type when a View is cut out of a wider one.
template <class Exec, class V>
ColumnMajor<V, Exec> stored(const BlasMatrix<V>& matrix) {
  const auto [rows, columns] =
      matrix.transposed ? std::pair(matrix.columns, matrix.rows) : std::pair(matrix.rows, matrix.columns);
  const ColumnMajor<V, Exec> padded(matrix.data, static_cast<std::size_t>(matrix.pitch),
                                    static_cast<std::size_t>(rows));
  return Kokkos::subview(padded, Kokkos::make_pair(std::int64_t{0}, columns), Kokkos::ALL);
}

template <class V>
const char* operation(const BlasMatrix<V>& matrix) {
  return matrix.transposed ? "T" : "N";
}

}  // namespace

/// Seen column-major everything is transposed: out^T = right^T * left^T.
template <class T, class Exec>
void kokkos_kernels_gemm(const Exec& exec, const BlasMatrix<const T>& left, const BlasMatrix<const T>& right,
                         const BlasMatrix<T>& out, bool add) {
  KokkosBlas::gemm(exec, operation(right), operation(left), T(1), stored<Exec>(right), stored<Exec>(left),
                   add ? T(1) : T(0), stored<Exec>(out));
}

#define KRAIT_INSTANTIATE(EXEC)                                                                                   \
  template void kokkos_kernels_gemm<float, EXEC>(const EXEC&, const BlasMatrix<const float>&,                     \
                                                 const BlasMatrix<const float>&, const BlasMatrix<float>&, bool); \
  template void kokkos_kernels_gemm<double, EXEC>(const EXEC&, const BlasMatrix<const double>&,                   \
                                                  const BlasMatrix<const double>&, const BlasMatrix<double>&, bool);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait::impl
