// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_NCCL

#include <nccl.h>

#include <source_location>

namespace krait::impl {

/// \throws CommError with the call, NCCL's texts and the place, unless the code is ncclSuccess
void check_nccl(ncclResult_t code, const char* call, const std::source_location& where);

}  // namespace krait::impl

/// Every call of NCCL goes through this.
#define KRAIT_CHECK_NCCL(call) ::krait::impl::check_nccl((call), #call, std::source_location::current())

#endif
