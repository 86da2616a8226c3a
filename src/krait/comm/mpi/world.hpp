// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <memory>

#include <krait/comm/backend.hpp>

namespace krait::impl {

/// All ranks of the program, or null where MPI is not initialised (or finalised already).
std::shared_ptr<Backend> mpi_world();

}  // namespace krait::impl
