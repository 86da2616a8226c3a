// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_MPI

#include <mpi.h>

#include <krait/comm/communicator.hpp>

namespace krait {

/// The ranks of an MPI communicator. It is duplicated, so Krait's messages never meet those of the caller; all its
/// ranks call this together, after MPI_Init.
/// \throws ConfigError for MPI_COMM_NULL
Communicator mpi_communicator(MPI_Comm comm);

}  // namespace krait

#endif
