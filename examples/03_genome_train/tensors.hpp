// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <string>

#include "genome_common/program.hpp"

namespace genome::train {

/// (1, local tokens, features)
template <class T>
using Hidden = Kokkos::View<T***, Kokkos::LayoutRight, Exec>;

template <class T>
using Array = Kokkos::View<T*, Exec>;

/// Part of an Array.
template <class T>
using Slice = Kokkos::View<T*, Exec, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

template <class T>
Hidden<T> make_hidden(const Exec& exec, const std::string& label, std::int64_t tokens, std::int64_t features) {
  return Hidden<T>(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, label), 1, tokens, features);
}

/// Indices [0, count).
inline auto range(const Exec& exec, std::int64_t count) {
  return Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, count);
}

/// Indices [0, rows) x [0, columns).
inline auto range(const Exec& exec, std::int64_t rows, std::int64_t columns) {
  return Kokkos::MDRangePolicy<Exec, Kokkos::Rank<2>, Kokkos::IndexType<std::int64_t>>(exec, {0, 0}, {rows, columns});
}

}  // namespace genome::train
