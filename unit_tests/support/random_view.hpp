// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Views of reproducible random numbers. An entry depends on the seed and its row-major position only, so Views of
/// different layout, and ranks that hold parts of a tensor, see the same numbers.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/core/random.hpp>
#include <limits>
#include <string>
#include <vector>

#include <support/view_values.hpp>

namespace krait::test {

namespace impl {

template <class View>
struct FillNormal {
  View view;
  std::uint64_t seed;
  double mean;
  double deviation;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const double value = mean + deviation * normal(seed, 0, static_cast<std::uint64_t>(i));
    element(view, i) = static_cast<typename View::value_type>(value);
  }
};

template <class View>
struct FillUniform {
  View view;
  std::uint64_t seed;
  double low;
  double high;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const double value = low + (high - low) * uniform(seed, 0, static_cast<std::uint64_t>(i));
    element(view, i) = static_cast<typename View::value_type>(value);
  }
};

template <class View>
struct FillConstant {
  View view;
  double value;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    element(view, i) = static_cast<typename View::value_type>(value);
  }
};

}  // namespace impl

/// Normal numbers; waits until they are there.
template <class View>
void fill_normal(const View& view, std::uint64_t seed, double mean = 0, double deviation = 1) {
  Kokkos::parallel_for("krait::test::fill", impl::policy_over(view),
                       impl::FillNormal<View>{view, seed, mean, deviation});
  Kokkos::fence("krait::test: inputs are ready");
}

/// Uniform numbers in (low, high); waits until they are there.
template <class View>
void fill_uniform(const View& view, std::uint64_t seed, double low = 0, double high = 1) {
  Kokkos::parallel_for("krait::test::fill", impl::policy_over(view), impl::FillUniform<View>{view, seed, low, high});
  Kokkos::fence("krait::test: inputs are ready");
}

/// One number everywhere; waits until it is there.
template <class View>
void fill(const View& view, double value) {
  Kokkos::parallel_for("krait::test::fill", impl::policy_over(view), impl::FillConstant<View>{view, value});
  Kokkos::fence("krait::test: inputs are ready");
}

/// NaN everywhere: an output that is not written, or an input that is read though it must not be, then shows.
template <class View>
void poison(const View& view) {
  fill(view, std::numeric_limits<double>::quiet_NaN());
}

/// A new View of normal numbers, e.g. `random_view<Kokkos::View<float***>>(seed, rows, length, channels)`.
template <class View, class... Extents>
View random_view(std::uint64_t seed, Extents... extents) {
  const View view("krait::test::random", static_cast<std::size_t>(extents)...);
  fill_normal(view, seed);
  return view;
}

/// A new View of NaNs, for outputs.
template <class View, class... Extents>
View poisoned_view(Extents... extents) {
  const View view("krait::test::poisoned", static_cast<std::size_t>(extents)...);
  poison(view);
  return view;
}

}  // namespace krait::test
