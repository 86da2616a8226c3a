# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Options. AUTO means: use it where it is found. C++ sees the outcome only through krait/core/config.hpp.

function(krait_option_auto name text)
  set(Krait_ENABLE_${name} AUTO CACHE STRING "${text} (AUTO, ON, OFF)")
  set_property(CACHE Krait_ENABLE_${name} PROPERTY STRINGS AUTO ON OFF)
  string(TOUPPER "${Krait_ENABLE_${name}}" value)
  if(NOT value MATCHES "^(AUTO|ON|OFF|TRUE|FALSE|YES|NO|1|0)$")
    message(FATAL_ERROR "Krait_ENABLE_${name} is '${Krait_ENABLE_${name}}'; it takes AUTO, ON or OFF")
  endif()
endfunction()

krait_option_auto(MPI "Communicate over MPI; without it the communicator has one rank")
krait_option_auto(NCCL "Communicate over NCCL between CUDA devices")
krait_option_auto(KOKKOS_KERNELS "Projections by Kokkos Kernels instead of the tile product")
krait_option_auto(HIGHWAY "Vector mathematics and small matrix products on the host by Highway")
option(Krait_ENABLE_GPU_AWARE_MPI "Default of the run-time switch: hand device memory to MPI as it is" OFF)

option(Krait_ENABLE_PROGRAMS "Build and install the programs (krait-plan)" ${PROJECT_IS_TOP_LEVEL})
option(Krait_ENABLE_TESTS "Build the unit tests" ${PROJECT_IS_TOP_LEVEL})
option(Krait_ENABLE_COMMON_TESTS "Build also the tests that no backend changes: headers by themselves, emulated warps" ON)
option(Krait_ENABLE_PERF_TESTS "Build the benchmarks" OFF)
option(Krait_ENABLE_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(Krait_ENABLE_DOCS "Build the documentation pages" OFF)
option(KRAIT_WARNINGS_AS_ERRORS "Treat the compiler's warnings as errors" OFF)

# Private warnings of one of Krait's own targets; nothing is exported to users.
function(krait_warnings target)
  set(warnings -Wall -Wextra)
  if(KRAIT_WARNINGS_AS_ERRORS)
    list(APPEND warnings -Werror)
  endif()
  list(JOIN warnings "," for_host)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:${warnings}>"
                                           "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=${for_host}>")
endfunction()
