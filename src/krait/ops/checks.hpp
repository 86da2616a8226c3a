// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the operators check and how they name themselves.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait::impl {

/// "name[path,scalar]", the label of an operator's region and kernels.
template <Scalar T>
std::string operator_label(const char* name, const char* path) {
  return std::string(name) + '[' + path + ',' + scalar_name<T>() + ']';
}

/// Throws ShapeError when the argument's extents are not the expected ones.
inline void require_extents(const char* function, const char* argument, const std::vector<std::int64_t>& given,
                            const std::vector<std::int64_t>& expected,
                            const std::source_location& where = std::source_location::current()) {
  if (given != expected) fail<ShapeError>(where, function, ": ", argument, " is ", given, ", expected ", expected);
}

}  // namespace krait::impl
