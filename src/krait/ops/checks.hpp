// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the operators check and how they name themselves.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/tile/pack.hpp>
#include <krait/tile/past_cache.hpp>

namespace krait::impl {

/// "name[path,scalar]", the label of an operator's region and kernels.
template <Scalar T>
std::string operator_label(const char* name, const char* path) {
  return std::string(name) + '[' + path + ',' + scalar_name<T>() + ']';
}

/// The path of operators that have one of their own for rows: at unit stride on a host, of whole packs on a device.
template <class Exec>
const char* path_of_rows(bool by_rows) {
  if (tile::works_in_packs<Exec>) return by_rows ? "device" : "device_strided";
  return by_rows ? "host" : "host_strided";
}

/// Throws ShapeError when the argument's extents are not the expected ones.
inline void require_extents(const char* function, const char* argument, const std::vector<std::int64_t>& given,
                            const std::vector<std::int64_t>& expected,
                            const std::source_location& where = std::source_location::current()) {
  if (given != expected) fail<ShapeError>(where, function, ": ", argument, " is ", given, ", expected ", expected);
}

/// Whether a host writes the tensor past its caches.
template <class View>
bool goes_past_cache(const View& written) {
  return written.size() * sizeof(typename View::value_type) >= static_cast<std::size_t>(tile::past_cache_bytes);
}

}  // namespace krait::impl
