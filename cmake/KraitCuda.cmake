# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# What a Kokkos with CUDA must bring, said before the first file is compiled.

# krait_check_cuda(<version of the toolkit> <version of Kokkos> <architectures, e.g. 90> <language of its sources>
#                  <compiler> <launcher of the compiler>)
function(krait_check_cuda toolkit kokkos architectures language compiler launcher)
  if(toolkit VERSION_GREATER_EQUAL 13 AND kokkos VERSION_LESS 4.7.1)
    message(FATAL_ERROR "CUDA ${toolkit} needs Kokkos 4.7.1 or newer; this is Kokkos ${kokkos}. "
                        "Kokkos 4.6 to 4.7.0 go with CUDA 12.")
  endif()
  if(NOT architectures)
    message(FATAL_ERROR "This Kokkos was built for CUDA without an architecture, so Krait cannot know for which device "
                        "to compile. Build Kokkos with the device's, e.g. -DKokkos_ARCH_HOPPER90=ON for an H100 or H200.")
  endif()
  foreach(architecture IN LISTS architectures)
    if(toolkit VERSION_GREATER_EQUAL 13 AND architecture LESS 75)
      message(FATAL_ERROR "This Kokkos was built for the architecture ${architecture}, which CUDA ${toolkit} no longer "
                          "compiles for. Take CUDA 12, or a Kokkos built for 75 or newer.")
    endif()
  endforeach()
  if(NOT language STREQUAL "CUDA" AND launcher AND NOT compiler MATCHES "nvcc_wrapper|clang")
    message(FATAL_ERROR "CMAKE_CXX_COMPILER_LAUNCHER is ${launcher}, and the compiler is ${compiler}: Kokkos hands CUDA "
                        "sources to nvcc by a launcher of its own, and the two do not go together. Leave yours away, or "
                        "set CMAKE_CXX_COMPILER to Kokkos's bin/nvcc_wrapper.")
  endif()
endfunction()
