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

/// Elements that a GPU moves in one access.
template <class V>
inline constexpr int vector_elements = 16 / static_cast<int>(sizeof(V));

/// Whether rows along the last index, from each multiple of `step` on, are whole vectors of a GPU. True for none.
template <class V, std::size_t Rank>
bool is_aligned(const Strided<V, Rank>& tensor, std::int64_t step) {
  constexpr std::int64_t each = vector_elements<V>;
  if (!tensor.given()) return true;
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % 16 != 0 || tensor.stride[Rank - 1] != 1) return false;
  for (std::size_t r = 0; r + 1 < Rank; ++r) {
    if (tensor.stride[r] % each != 0) return false;
  }
  return step % each == 0;
}

}  // namespace krait::impl
