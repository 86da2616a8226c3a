# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# krait_kokkos_sources(target): where Kokkos was built as a CMake language (Kokkos_ENABLE_COMPILE_AS_CMAKE_LANGUAGE),
# compile the target's sources in that language; elsewhere do nothing. Sources of a room are absolute paths.
function(krait_kokkos_sources target)
  if(NOT DEFINED Kokkos_COMPILE_LANGUAGE OR Kokkos_COMPILE_LANGUAGE STREQUAL "CXX")
    return()
  endif()
  enable_language(${Kokkos_COMPILE_LANGUAGE})
  get_target_property(sources ${target} SOURCES)
  get_target_property(directory ${target} SOURCE_DIR)
  foreach(source IN LISTS sources)
    if(source MATCHES "\\.cpp$")
      set_source_files_properties(${source} TARGET_DIRECTORY ${target} PROPERTIES LANGUAGE ${Kokkos_COMPILE_LANGUAGE})
    endif()
  endforeach()
  if(Kokkos_COMPILE_LANGUAGE STREQUAL "CUDA")
    set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${Kokkos_CUDA_ARCHITECTURES}")
  endif()
endfunction()
