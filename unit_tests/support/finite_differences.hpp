// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Gradients without formulas: `EXPECT_TRUE(all_close(gradient, finite_differences(input, loss), by_differences()))`.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <krait/core/random.hpp>
#include <numeric>
#include <vector>

#include <support/allclose.hpp>

namespace krait::test {

/// Derivatives of a smooth function with respect to every entry of `values`, which it reads: central differences of
/// fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. For values, derivatives and f of order 1 in double
/// precision the error is about 1e-11. No kink of f may lie within two steps.
template <class Function>
std::vector<double> finite_differences(std::vector<double>& values, const Function& f, double step = 2e-4) {
  std::vector<double> slopes;
  slopes.reserve(values.size());
  for (double& value : values) {
    const double kept = value;
    const auto at = [&](double steps) {
      value = kept + steps * step;
      return f();
    };
    const double near = at(1) - at(-1);
    const double far = at(2) - at(-2);
    slopes.push_back((8 * near - far) / (12 * step));
    value = kept;
  }
  return slopes;
}

/// The same for the entries of a View of double, which is in the end as it was.
template <class View, class Function>
  requires Kokkos::is_view_v<View>
std::vector<double> finite_differences(const View& view, const Function& f) {
  std::vector<double> values = values_of(view);
  const std::vector<double> slopes = finite_differences(values, [&] {
    assign(view, values);
    return f();
  });
  assign(view, values);
  return slopes;
}

/// Agreement of a formula in double precision with finite_differences().
inline Tolerance by_differences() { return {.nmse = 1e-18, .relative = 1e-8}; }

/// A loss whose gradient with respect to `values` is `weights`; 0 without weights.
inline double weighted_sum(const std::vector<double>& weights, const std::vector<double>& values) {
  return std::inner_product(weights.begin(), weights.end(), values.begin(), 0.0);
}

/// Reproducible normal numbers on the host.
inline std::vector<double> normal_numbers(std::uint64_t seed, std::int64_t count, double mean = 0,
                                          double deviation = 1) {
  std::vector<double> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = mean + deviation * normal(seed, 0, i);
  return numbers;
}

}  // namespace krait::test
