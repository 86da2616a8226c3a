# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
include(${MODULE})
krait_check_cuda("${TOOLKIT}" "${KOKKOS}" "${ARCHITECTURES}" "${LANGUAGE}" "${COMPILER}" "${LAUNCHER}")
message(STATUS "krait_check_cuda: fine")
