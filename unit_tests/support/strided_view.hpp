// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The memory layouts in which callers hand over (rows, tokens, features) tensors.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/scalars.hpp>

#include <support/random_view.hpp>

namespace krait::test {

enum class Arrangement {
  features_last,   ///< rows, tokens, features: features at unit stride
  features_first,  ///< rows, features, tokens: tokens at unit stride
  slice,           ///< features_last, cut out of a wider tensor
  aligned_slice,   ///< the same at multiples of 16 bytes, where the features are
  gaps             ///< every second feature of a wider tensor
};

inline constexpr Arrangement all_arrangements[] = {Arrangement::features_last, Arrangement::features_first,
                                                   Arrangement::slice, Arrangement::aligned_slice, Arrangement::gaps};

template <class V>
using StridedView = Kokkos::View<V***, Kokkos::LayoutStride>;

/// A new tensor in the given arrangement, every entry of its memory NaN.
template <class V>
StridedView<V> strided_view(Arrangement arrangement, std::int64_t rows, std::int64_t tokens, std::int64_t features) {
  const auto r = static_cast<std::size_t>(rows);
  const auto t = static_cast<std::size_t>(tokens);
  const auto f = static_cast<std::size_t>(features);
  using Wide = Kokkos::View<V***, Kokkos::LayoutRight>;
  switch (arrangement) {
    case Arrangement::features_first: {
      const StridedView<V> view("krait::test::strided", Kokkos::LayoutStride(r, f * t, t, 1, f, t));
      poison(view);
      return view;
    }
    case Arrangement::slice: {
      const auto wide = poisoned_view<Wide>(r, t, f + 8);
      return Kokkos::subview(wide, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(std::size_t{3}, f + 3));
    }
    case Arrangement::aligned_slice: {
      const auto wide = poisoned_view<Wide>(r, t, f + 16);
      return Kokkos::subview(wide, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(std::size_t{8}, f + 8));
    }
    case Arrangement::gaps: {
      const auto wide = poisoned_view<Kokkos::View<V****, Kokkos::LayoutRight>>(r, t, f, 2);
      return Kokkos::subview(wide, Kokkos::ALL, Kokkos::ALL, Kokkos::ALL, 1);
    }
    default:
      return poisoned_view<Wide>(r, t, f);
  }
}

/// A new tensor of normal numbers; what lies between its entries is NaN.
template <class V>
StridedView<V> random_strided_view(Arrangement arrangement, std::uint64_t seed, std::int64_t rows, std::int64_t tokens,
                                   std::int64_t features) {
  const auto view = strided_view<V>(arrangement, rows, tokens, features);
  fill_normal(view, seed);
  return view;
}

}  // namespace krait::test
