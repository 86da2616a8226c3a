// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#ifdef KOKKOS_ENABLE_CUDA

#include <cuda_runtime_api.h>

#include <source_location>

#include <krait/core/error.hpp>

namespace krait::impl {

/// \throws CommError with the call, CUDA's text and the place, unless the code is cudaSuccess
inline void check_cuda(cudaError_t code, const char* call, const std::source_location& where) {
  if (code != cudaSuccess) fail<CommError>(where, call, " failed: ", cudaGetErrorString(code));
}

}  // namespace krait::impl

/// Every call of CUDA in this room goes through this.
#define KRAIT_CHECK_CUDA(call) ::krait::impl::check_cuda((call), #call, std::source_location::current())

#endif
