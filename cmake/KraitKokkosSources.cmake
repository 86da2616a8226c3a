# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# krait_kokkos_sources(target [HOST <regular expression>]): compiles the target's sources as its Kokkos wants them. Where
# Kokkos was built as a CMake language (Kokkos_ENABLE_COMPILE_AS_CMAKE_LANGUAGE), in that language; where nvcc_wrapper
# compiles, or Kokkos hands sources to it, nothing is to be done. Sources that match HOST hold no Kokkos and are left to
# the host's compiler. Sources of a room are absolute paths.

# A language is enabled for a folder and all below it; within a function its variables would be lost.
if(DEFINED Kokkos_COMPILE_LANGUAGE AND NOT Kokkos_COMPILE_LANGUAGE STREQUAL "CXX")
  if(Kokkos_COMPILE_LANGUAGE STREQUAL "CUDA" AND NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "${Kokkos_CUDA_ARCHITECTURES}")
  endif()
  enable_language(${Kokkos_COMPILE_LANGUAGE})
endif()

function(krait_kokkos_sources target)
  cmake_parse_arguments(ARG "" "HOST" "" ${ARGN})
  set(is_language OFF)
  if(DEFINED Kokkos_COMPILE_LANGUAGE AND NOT Kokkos_COMPILE_LANGUAGE STREQUAL "CXX")
    set(is_language ON)
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    if(NOT source MATCHES "\\.cpp$")
      continue()
    elseif(ARG_HOST AND source MATCHES "${ARG_HOST}")
      if(Kokkos_DEVICES MATCHES "CUDA" AND NOT is_language AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
        set_property(SOURCE ${source} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS --host-only)
      endif()
    elseif(is_language)
      set_property(SOURCE ${source} TARGET_DIRECTORY ${target} PROPERTY LANGUAGE ${Kokkos_COMPILE_LANGUAGE})
    endif()
  endforeach()
  if(is_language AND Kokkos_COMPILE_LANGUAGE STREQUAL "CUDA")
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${Kokkos_CUDA_ARCHITECTURES}")
  endif()
endfunction()
