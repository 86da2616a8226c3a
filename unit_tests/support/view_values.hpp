// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Between device Views of any rank, layout and scalar and row-major `std::vector<double>` on the host.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <vector>

namespace krait::test {

template <class View>
std::vector<std::int64_t> extents_of(const View& view) {
  std::vector<std::int64_t> extents(View::rank());
  for (std::size_t r = 0; r < View::rank(); ++r) extents[r] = static_cast<std::int64_t>(view.extent(r));
  return extents;
}

namespace impl {

/// Element of a View of rank 1 to 5 by its row-major position.
template <class View>
KOKKOS_FUNCTION typename View::reference_type element(const View& view, std::int64_t index) {
  constexpr std::size_t rank = View::rank();
  static_assert(1 <= rank && rank <= 5);
  std::int64_t i[rank] = {};
  for (std::size_t r = rank; r-- > 0;) {
    const auto extent = static_cast<std::int64_t>(view.extent(r));
    i[r] = index % extent;
    index /= extent;
  }
  if constexpr (rank == 1) return view(i[0]);
  if constexpr (rank == 2) return view(i[0], i[1]);
  if constexpr (rank == 3) return view(i[0], i[1], i[2]);
  if constexpr (rank == 4) return view(i[0], i[1], i[2], i[3]);
  if constexpr (rank == 5) return view(i[0], i[1], i[2], i[3], i[4]);
}

template <class View>
using DoublesOf = Kokkos::View<double*, typename View::memory_space>;

template <class View>
struct Gather {
  View view;
  DoublesOf<View> flat;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { flat(i) = static_cast<double>(element(view, i)); }
};

template <class View>
struct Scatter {
  View view;
  DoublesOf<View> flat;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    element(view, i) = static_cast<typename View::value_type>(flat(i));
  }
};

template <class View>
auto policy_over(const View& view) {
  return Kokkos::RangePolicy<typename View::execution_space, Kokkos::IndexType<std::int64_t>>(
      0, static_cast<std::int64_t>(view.size()));
}

using HostDoubles = Kokkos::View<double*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

}  // namespace impl

/// The entries in row-major order. Waits for everything that was enqueued before.
template <class View>
std::vector<double> values_of(const View& view) {
  std::vector<double> values(view.size());
  Kokkos::fence("krait::test: results are ready");
  const impl::DoublesOf<View> flat("krait::test::values", view.size());
  Kokkos::parallel_for("krait::test::gather", impl::policy_over(view), impl::Gather<View>{view, flat});
  Kokkos::deep_copy(impl::HostDoubles(values.data(), values.size()), flat);
  return values;
}

/// Stores row-major values, rounded to the View's scalar.
template <class View>
void assign(const View& view, const std::vector<double>& values) {
  const impl::DoublesOf<View> flat("krait::test::values", view.size());
  Kokkos::deep_copy(flat, Kokkos::View<const double*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>(
                              values.data(), view.size()));
  Kokkos::parallel_for("krait::test::scatter", impl::policy_over(view), impl::Scatter<View>{view, flat});
  Kokkos::fence("krait::test: inputs are ready");
}

}  // namespace krait::test
