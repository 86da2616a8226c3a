// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

namespace krait::impl {

/// A tensor without its extents: all that a kernel needs of a View, in half its size. Offsets are 64-bit.
template <class V, std::size_t Rank>
struct Strided {
  V* data = nullptr;
  std::int64_t stride[Rank] = {};

  Strided() = default;

  template <class View>
  explicit Strided(const View& view) : data(view.data()) {
    static_assert(View::rank() == Rank);
    for (std::size_t r = 0; r < Rank; ++r) stride[r] = static_cast<std::int64_t>(view.stride(r));
  }

  [[nodiscard]] KOKKOS_INLINE_FUNCTION bool given() const { return data != nullptr; }

  template <class... I>
    requires(sizeof...(I) == Rank)
  KOKKOS_INLINE_FUNCTION V& operator()(I... i) const {
    std::int64_t offset = 0;
    std::size_t r = 0;
    ((offset += static_cast<std::int64_t>(i) * stride[r++]), ...);
    return data[offset];
  }
};

}  // namespace krait::impl
