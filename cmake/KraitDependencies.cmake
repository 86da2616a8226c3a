# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Finds what the options ask for. For each optional part, KRAIT_ENABLE_<PART> says whether it is used and
# KRAIT_<PART>_NOTE what the summary prints.

if(NOT TARGET Kokkos::kokkos)
  find_package(Kokkos 4.6...<6 REQUIRED CONFIG)
endif()
if(DEFINED Kokkos_VERSION AND Kokkos_DEVICES MATCHES "CUDA")
  find_package(CUDAToolkit QUIET)
  if(CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13 AND Kokkos_VERSION VERSION_LESS 4.7.1)
    message(FATAL_ERROR "CUDA ${CUDAToolkit_VERSION} needs Kokkos 4.7.1 or newer; this is Kokkos ${Kokkos_VERSION}")
  endif()
endif()

# krait_find(PART <find_package arguments>): honours AUTO, ON and OFF.
macro(krait_find part)
  set(KRAIT_ENABLE_${part} OFF)
  set(KRAIT_${part}_NOTE "switched off")
  string(TOUPPER "${Krait_ENABLE_${part}}" _krait_wish)
  if(_krait_wish STREQUAL "AUTO")
    find_package(${ARGN} QUIET)
  elseif(_krait_wish)
    find_package(${ARGN} REQUIRED)
  endif()
endmacro()

set(MPI_CXX_SKIP_MPICXX ON)
krait_find(MPI MPI COMPONENTS CXX)
if(MPI_CXX_FOUND AND Krait_ENABLE_MPI)
  set(KRAIT_ENABLE_MPI ON)
  set(KRAIT_MPI_NOTE "MPI ${MPI_CXX_VERSION}")
elseif(Krait_ENABLE_MPI)
  set(KRAIT_MPI_NOTE "not found: the communicator has one rank")
endif()

krait_find(KOKKOS_KERNELS KokkosKernels 4.6...<6 CONFIG)
if(KokkosKernels_FOUND AND Krait_ENABLE_KOKKOS_KERNELS)
  set(KRAIT_ENABLE_KOKKOS_KERNELS ON)
  set(KRAIT_KOKKOS_KERNELS_NOTE "${KokkosKernels_VERSION}")
  # Kokkos Kernels by itself and within Trilinos name their library differently.
  if(TARGET Kokkos::kokkoskernels)
    set(KRAIT_KOKKOS_KERNELS_TARGET Kokkos::kokkoskernels)
  else()
    set(KRAIT_KOKKOS_KERNELS_TARGET KokkosKernels::all_libs)
  endif()
elseif(Krait_ENABLE_KOKKOS_KERNELS)
  set(KRAIT_KOKKOS_KERNELS_NOTE "not found: projections use Krait's tile product")
endif()

# The NCCL communicator, the LIBXSMM products and the Highway kernels are not part of this version. Asking for one is
# an error, not a promise.
foreach(part NCCL LIBXSMM HIGHWAY)
  set(KRAIT_ENABLE_${part} OFF)
  string(TOUPPER "${Krait_ENABLE_${part}}" _krait_wish)
  if(_krait_wish STREQUAL "AUTO" OR NOT _krait_wish)
    set(KRAIT_${part}_NOTE "not in this version")
  else()
    message(FATAL_ERROR "Krait_ENABLE_${part}=ON: Krait ${PROJECT_VERSION} has no ${part} path yet; use AUTO or OFF")
  endif()
endforeach()
if(Krait_ENABLE_GPU_AWARE_MPI)
  set(KRAIT_ENABLE_GPU_AWARE_MPI ON)
endif()
