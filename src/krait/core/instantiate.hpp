// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Explicit instantiation. Kernels are compiled once, into the library, for the default execution space (and the
/// default host space where it is another one) and the four scalars.
///
/// A source file defines `#define KRAIT_INSTANTIATE(T, EXEC) template void f<T, EXEC>(...);` and then writes
/// `KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)`.

#include <Kokkos_Core.hpp>
#include <krait/core/scalars.hpp>

#define KRAIT_IMPL_FOR_EACH_SCALAR(MACRO, EXEC) \
  MACRO(float, EXEC)                            \
  MACRO(double, EXEC)                           \
  MACRO(krait::bfloat16, EXEC)                  \
  MACRO(krait::float16, EXEC)

#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)
#define KRAIT_FOR_EACH_SPACE(MACRO)    \
  MACRO(Kokkos::DefaultExecutionSpace) \
  MACRO(Kokkos::DefaultHostExecutionSpace)
#define KRAIT_FOR_EACH_SCALAR_AND_SPACE(MACRO)                     \
  KRAIT_IMPL_FOR_EACH_SCALAR(MACRO, Kokkos::DefaultExecutionSpace) \
  KRAIT_IMPL_FOR_EACH_SCALAR(MACRO, Kokkos::DefaultHostExecutionSpace)
#else
#define KRAIT_FOR_EACH_SPACE(MACRO) MACRO(Kokkos::DefaultExecutionSpace)
#define KRAIT_FOR_EACH_SCALAR_AND_SPACE(MACRO) KRAIT_IMPL_FOR_EACH_SCALAR(MACRO, Kokkos::DefaultExecutionSpace)
#endif
