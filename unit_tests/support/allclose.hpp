// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Comparison of tensors: `EXPECT_TRUE(all_close(got, want, tolerance<T>()))` for device Views of any rank and layout.

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <krait/core/scalars.hpp>
#include <string>
#include <vector>

#include <support/view_values.hpp>

namespace krait::test {

/// How far a computed tensor may be from the reference: all three bounds hold for the tensor as a whole.
struct Tolerance {
  double nmse = 0;               ///< sum((got - want)^2) / sum(want^2)
  double absolute = 0;           ///< largest |got - want| beyond the relative part
  double relative = 0;           ///< ... as a part of the largest |want|
  bool unbounded_error = false;  ///< only the NMSE counts
};

/// The bounds a kernel must keep when its inputs, as stored, are those of the reference.
/// \param operand_error  16-bit scalars only: the largest error that rounding intermediate operands to T makes in the
///                       reference algorithm; 0 where a kernel rounds its result only
template <Scalar T>
Tolerance tolerance(double operand_error = 0) {
  if constexpr (std::is_same_v<T, double>) return {.nmse = 1e-24, .relative = 1e-12};
  if constexpr (std::is_same_v<T, float>) return {.nmse = 1e-10, .unbounded_error = true};
  // Storing the result rounds it by up to half a unit in the last place; twice that, and a floor for cancellation.
  constexpr double unit = std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-11;
  return {.nmse = 2.5e-5, .absolute = 8e-3 + 2 * operand_error, .relative = unit};
}

/// Bits must agree; a NaN agrees with a NaN.
inline Tolerance exact() { return {}; }

namespace impl {

/// "(1, 0, 3)" for a row-major position.
inline std::string position(std::int64_t index, const std::vector<std::int64_t>& extents) {
  std::vector<std::int64_t> place(extents.size());
  for (std::size_t r = extents.size(); r-- > 0;) {
    place[r] = index % extents[r];
    index /= extents[r];
  }
  std::string text = "(";
  for (std::size_t r = 0; r < place.size(); ++r) text += (r == 0 ? "" : ", ") + std::to_string(place[r]);
  return text + ")";
}

}  // namespace impl

/// Compares row-major values. The message shows the first wrong entries with their positions.
inline testing::AssertionResult all_close(const std::vector<double>& got, const std::vector<double>& want,
                                          const Tolerance& tolerance, std::vector<std::int64_t> extents = {}) {
  if (extents.empty()) extents.push_back(static_cast<std::int64_t>(want.size()));
  if (got.size() != want.size())
    return testing::AssertionFailure() << "got " << got.size() << " entries, wanted " << want.size();
  double error = 0;
  double norm = 0;
  double largest = 0;
  for (const double value : want) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  const double allowed = tolerance.absolute + tolerance.relative * largest;
  double worst = 0;
  std::vector<std::size_t> wrong;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(want[i]) || !std::isfinite(got[i])) {
      const bool same = got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]));
      if (!same) wrong.push_back(i);
      continue;
    }
    const double difference = std::abs(got[i] - want[i]);
    error += difference * difference;
    norm += want[i] * want[i];
    worst = std::max(worst, difference);
    if (!tolerance.unbounded_error && difference > allowed) wrong.push_back(i);
  }
  const bool nmse_holds = error <= tolerance.nmse * norm;
  if (nmse_holds && wrong.empty()) return testing::AssertionSuccess();

  auto failure = testing::AssertionFailure();
  failure << "NMSE " << (norm > 0 ? error / norm : error) << " (limit " << tolerance.nmse << "), largest error "
          << worst;
  if (!tolerance.unbounded_error) failure << " (limit " << allowed << ")";
  failure << ", " << wrong.size() << " entries out of bounds";
  if (wrong.empty()) {  // only the sum is too large: show the entries that make it so
    for (std::size_t i = 0; i < want.size(); ++i) wrong.push_back(i);
    std::stable_sort(wrong.begin(), wrong.end(), [&](std::size_t a, std::size_t b) {
      return std::abs(got[a] - want[a]) > std::abs(got[b] - want[b]);
    });
  }
  constexpr std::size_t shown = 6;
  for (std::size_t i = 0; i < std::min(shown, wrong.size()); ++i)
    failure << "\n  at " << impl::position(static_cast<std::int64_t>(wrong[i]), extents) << ": got " << got[wrong[i]]
            << ", wanted " << want[wrong[i]];
  return failure;
}

/// Compares a View with row-major values.
template <class DataType, class... Properties>
testing::AssertionResult all_close(const Kokkos::View<DataType, Properties...>& got, const std::vector<double>& want,
                                   const Tolerance& tolerance) {
  return all_close(values_of(got), want, tolerance, extents_of(got));
}

/// Compares two Views.
template <class D1, class... P1, class D2, class... P2>
testing::AssertionResult all_close(const Kokkos::View<D1, P1...>& got, const Kokkos::View<D2, P2...>& want,
                                   const Tolerance& tolerance) {
  if (extents_of(got) != extents_of(want)) return testing::AssertionFailure() << "the extents differ";
  return all_close(values_of(got), values_of(want), tolerance, extents_of(got));
}

/// Compares two Views bit for bit (as values; -0 equals 0, NaN equals NaN).
template <class Got, class Want>
testing::AssertionResult same(const Got& got, const Want& want) {
  return all_close(got, want, exact());
}

}  // namespace krait::test
