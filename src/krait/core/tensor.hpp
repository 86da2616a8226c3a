// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Canonical Views. Every public function takes its tensors as `Tensor<...>`: an unmanaged strided View to which any
/// View of the right scalar, rank and memory space converts by itself. So LayoutLeft, LayoutRight, subviews and
/// managed Views all reach one compiled kernel, and a slice of a wider projection needs no copy.

#include <Kokkos_Core.hpp>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/core/kokkos_shims.hpp>

namespace krait {

template <class DataType, class Exec = Kokkos::DefaultExecutionSpace>
using Tensor =
    Kokkos::View<DataType, Kokkos::LayoutStride, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

/// A tensor that was not given: optional arguments are default-constructed Views.
template <class View>
bool is_absent(const View& view) {
  return view.data() == nullptr && view.size() == 0;
}

/// Extents for messages and checks.
template <class View>
std::vector<std::int64_t> extents(const View& view) {
  std::vector<std::int64_t> result(View::rank());
  for (std::size_t r = 0; r < View::rank(); ++r) result[r] = static_cast<std::int64_t>(view.extent(r));
  return result;
}

/// View of row-major memory at `data` with the given extents and, if given, strides (in elements).
/// \tparam DataType e.g. `const float***`
template <class DataType, class Exec, std::size_t Rank>
Tensor<DataType, Exec> make_tensor(typename Tensor<DataType, Exec>::pointer_type data,
                                   const std::array<std::int64_t, Rank>& extents,
                                   const std::array<std::int64_t, Rank>& strides) {
  static_assert(Rank == Tensor<DataType, Exec>::rank());
  Kokkos::LayoutStride layout;
  for (std::size_t r = 0; r < Rank; ++r) {
    layout.dimension[r] = static_cast<std::size_t>(extents[r]);
    layout.stride[r] = static_cast<std::size_t>(strides[r]);
  }
  return Tensor<DataType, Exec>(data, layout);
}

template <class DataType, class Exec, std::size_t Rank>
Tensor<DataType, Exec> make_tensor(typename Tensor<DataType, Exec>::pointer_type data,
                                   const std::array<std::int64_t, Rank>& extents) {
  std::array<std::int64_t, Rank> strides{};
  std::int64_t stride = 1;
  for (std::size_t r = Rank; r-- > 0;) {
    strides[r] = stride;
    stride *= extents[r];
  }
  return make_tensor<DataType, Exec, Rank>(data, extents, strides);
}

namespace impl {

/// Columns [begin, begin + count) of a (b, places, columns) tensor.
template <class V, class Layout, class... Properties>
Kokkos::View<V, Layout, Properties...> columns(const Kokkos::View<V, Layout, Properties...>& tensor, std::int64_t begin,
                                               std::int64_t count) {
  return Kokkos::subview(tensor, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(begin, begin + count));
}

}  // namespace impl

}  // namespace krait
