// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_MPI

#include <mpi.h>

#include <source_location>
#include <string>

namespace krait::impl {

/// What MPI says about a return code.
std::string mpi_text(int code);

/// \throws CommError with the call, MPI's text and the place, unless the code is MPI_SUCCESS
void check_mpi(int code, const char* call, const std::source_location& where);

}  // namespace krait::impl

/// Every call of MPI goes through this.
#define KRAIT_CHECK_MPI(call) ::krait::impl::check_mpi((call), #call, std::source_location::current())

#endif
