// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection_kokkos_kernels.hpp>

#include <KokkosBlas3_gemm.hpp>

#include <krait/core/instantiate.hpp>

namespace krait::impl {
namespace {

template <class V, class Exec>
using ColumnMajor =
    Kokkos::View<V**, Kokkos::LayoutLeft, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

/// A row-major matrix with a pitch is a column-major one of the transpose, with a leading dimension; of the two layouts
/// only LayoutLeft keeps its type when a View is cut out of a wider one.
template <class Exec, class V>
ColumnMajor<V, Exec> transpose(const RowMajor<V>& matrix) {
  const ColumnMajor<V, Exec> padded(matrix.data, static_cast<std::size_t>(matrix.pitch),
                                    static_cast<std::size_t>(matrix.rows));
  return Kokkos::subview(padded, Kokkos::make_pair(std::int64_t{0}, matrix.columns), Kokkos::ALL);
}

}  // namespace

template <class T, class Exec>
void kokkos_kernels_gemm(const Exec& exec, const RowMajor<const T>& in, const RowMajor<const T>& weight,
                         const RowMajor<T>& out, bool add) {
  KokkosBlas::gemm(exec, "T", "N", T(1), transpose<Exec>(weight), transpose<Exec>(in), add ? T(1) : T(0),
                   transpose<Exec>(out));
}

#define KRAIT_INSTANTIATE(EXEC)                                                                               \
  template void kokkos_kernels_gemm<float, EXEC>(const EXEC&, const RowMajor<const float>&,                   \
                                                 const RowMajor<const float>&, const RowMajor<float>&, bool); \
  template void kokkos_kernels_gemm<double, EXEC>(const EXEC&, const RowMajor<const double>&,                 \
                                                  const RowMajor<const double>&, const RowMajor<double>&, bool);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait::impl
