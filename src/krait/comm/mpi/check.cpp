// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/mpi/check.hpp>

#include <krait/core/error.hpp>

namespace krait::impl {

std::string mpi_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "MPI error " + std::to_string(code);
  return {text, static_cast<std::size_t>(length)};
}

void check_mpi(int code, const char* call, const std::source_location& where) {
  if (code != MPI_SUCCESS) fail<CommError>(where, call, " failed: ", mpi_text(code));
}

}  // namespace krait::impl
