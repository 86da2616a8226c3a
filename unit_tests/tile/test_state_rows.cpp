// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rows of a state that a token advances, in vectors with every instruction set that this machine has and in the
// portable version, against the formula in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/generic/state_rows.hpp>
#include <krait/tile/host/state_rows.hpp>
#include <limits>
#include <vector>

#include "instruction_sets.hpp"

namespace {

using krait::accumulator_t;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

template <class V>
std::vector<V> normals(std::uint64_t seed, std::size_t count) {
  std::vector<V> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<V>(static_cast<accumulator_t<V>>(krait::normal(seed, 0, i)));
  return values;
}

/// Rows of `columns` entries and a gap, which holds NaN and which nobody may write.
template <class T>
struct Problem {
  using A = accumulator_t<T>;
  static constexpr double decay = 0.75, step = 0.5;
  std::size_t rows, columns, pitch;
  std::vector<A> state, x, y;
  std::vector<T> b, c;
  std::vector<double> want_state, want_y;
  std::vector<double> sizes;  ///< of the terms that make an element of the state

  Problem(std::size_t height, std::size_t width)
      : rows(height),
        columns(width),
        pitch(width + 3),
        state(normals<A>(1, rows * pitch)),
        x(normals<A>(2, rows)),
        y(rows + 1, std::numeric_limits<A>::quiet_NaN()),
        b(normals<T>(3, columns)),
        c(normals<T>(4, columns)) {
    for (std::size_t p = 0; p < rows; ++p) {
      for (std::size_t n = columns; n < pitch; ++n) state[p * pitch + n] = std::numeric_limits<A>::quiet_NaN();
    }
    want_state.assign(state.begin(), state.end());
    want_y.assign(rows, 0.0);
    sizes = want_state;
    for (std::size_t p = 0; p < rows; ++p) {
      for (std::size_t n = 0; n < columns; ++n) {
        double& s = want_state[p * pitch + n];
        const double in = step * double{x[p]} * static_cast<double>(b[n]);
        sizes[p * pitch + n] = std::abs(decay * s) + std::abs(in);
        s = decay * s + in;
        want_y[p] += s * static_cast<double>(c[n]);
      }
    }
  }

  krait::tile::StateRows<T, A> call() {
    return {static_cast<int>(rows),
            static_cast<std::int64_t>(columns),
            state.data(),
            static_cast<std::int64_t>(pitch),
            A(decay),
            A(step),
            b.data(),
            c.data(),
            x.data(),
            y.data()};
  }

  /// Within what rounding can do: to a few operations on an element, and to a sum in any order.
  void expect_formula() const {
    constexpr double unit = std::numeric_limits<A>::epsilon() / 2;
    for (std::size_t p = 0; p < rows; ++p) {
      double terms = 0;
      for (std::size_t n = 0; n < pitch; ++n) {
        const std::size_t i = p * pitch + n;
        if (n >= columns) {
          EXPECT_TRUE(std::isnan(state[i])) << "written behind row " << p;
          continue;
        }
        EXPECT_NEAR(state[i], want_state[i], 4 * unit * sizes[i]) << "row " << p << ", column " << n;
        terms += sizes[i] * std::abs(static_cast<double>(c[n]));
      }
      EXPECT_NEAR(y[p], want_y[p], static_cast<double>(columns + 4) * unit * terms) << "row " << p;
    }
    EXPECT_TRUE(std::isnan(y[rows])) << "written behind y";
  }
};

template <class T>
class StateRows : public testing::Test {};
TYPED_TEST_SUITE(StateRows, Scalars);

TYPED_TEST(StateRows, EveryExtentMatchesTheFormula) {
  for (const std::size_t rows : {1U, 3U, 4U, 5U, 16U}) {
    for (const std::size_t columns : {1U, 7U, 15U, 16U, 17U, 47U, 128U, 300U}) {
      SCOPED_TRACE(testing::Message() << rows << " rows of " << columns);
      Problem<TypeParam> portable(rows, columns);
      krait::tile::generic::advance_state_rows(portable.call());
      portable.expect_formula();
      for (const auto& set : krait::test::instruction_sets()) {
        SCOPED_TRACE(set.name);
        krait::test::use(set);
        Problem<TypeParam> vectors(rows, columns);
        krait::tile::host::advance_state_rows(vectors.call());
        vectors.expect_formula();
      }
      krait::test::use_best_instruction_set();
    }
  }
}

}  // namespace
