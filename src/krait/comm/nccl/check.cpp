// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/nccl/check.hpp>

#include <krait/core/error.hpp>

namespace krait::impl {

void check_nccl(ncclResult_t code, const char* call, const std::source_location& where) {
  if (code == ncclSuccess) return;
  // The last error of the thread says more than the code; it may be empty.
  fail<CommError>(where, call, " failed: ", ncclGetErrorString(code), ": ", ncclGetLastError(nullptr));
}

}  // namespace krait::impl
