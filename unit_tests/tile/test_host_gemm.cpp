// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The product of tiles in vectors, with every instruction set that this machine has, against sums in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/tile/host/gemm.hpp>
#include <limits>
#include <vector>

#include "instruction_sets.hpp"

namespace {

using krait::tile::host::GemmCall;

constexpr int padding = 5;  ///< between rows, and in front of the first: nothing begins where a vector may

template <class V>
std::vector<V> random_values(std::uint64_t stream, std::size_t count) {
  std::vector<V> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<V>(krait::normal(11, stream, i));
  return values;
}

/// Tiles of reproducible numbers; what is in c but not in its tile is NaN, and so is the tile if it may not be read.
template <class V>
class Tiles {
 public:
  Tiles(int rows, int columns, int inner, bool a_transposed, V beta) : beta_(beta) {
    const auto room = [](int down, int across) { return static_cast<std::size_t>((down + 1) * (across + padding)); };
    a_ = random_values<V>(1, room(a_transposed ? inner : rows, a_transposed ? rows : inner));
    b_ = random_values<V>(2, room(inner, columns));
    c_.assign(room(rows, columns), std::numeric_limits<V>::quiet_NaN());
    const std::int64_t pitch = (a_transposed ? rows : inner) + padding;
    call_ = {rows,
             columns,
             inner,
             a_.data() + padding,
             a_transposed ? 1 : pitch,
             a_transposed ? pitch : 1,
             b_.data() + padding,
             columns + padding,
             beta,
             c_.data() + padding,
             columns + padding};
    const auto before = random_values<V>(3, c_.size());
    for (int i = 0; beta != V(0) && i < rows; ++i) {
      for (int j = 0; j < columns; ++j) c_[place(i, j)] = before[place(i, j)];
    }
    before_ = c_;
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  [[nodiscard]] const GemmCall<V>& call() const { return call_; }
  [[nodiscard]] V& c(int i, int j) { return c_[place(i, j)]; }

  /// The product, and what rounding may make of it: half a unit for each of its operations.
  void expect_product() {
    for (int i = 0; i < call_.rows; ++i) {
      for (int j = 0; j < call_.columns; ++j) {
        long double want = beta_ == V(0) ? 0 : static_cast<long double>(beta_) * before_[place(i, j)];
        long double size = std::abs(want);
        for (int l = 0; l < call_.inner; ++l) {
          const long double term =
              static_cast<long double>(call_.a[i * call_.a_row + l * call_.a_column]) * call_.b[l * call_.b_row + j];
          want += term;
          size += std::abs(term);
        }
        const auto error = std::abs(static_cast<long double>(c(i, j)) - want);
        ASSERT_LE(error, (call_.inner + 2) * std::numeric_limits<V>::epsilon() * size)
            << "at (" << i << ", " << j << ")";
      }
    }
  }
  /// Nothing may be written between the rows.
  void expect_rest_untouched() {
    std::vector<char> inside(c_.size(), 0);
    for (int i = 0; i < call_.rows; ++i) {
      for (int j = 0; j < call_.columns; ++j) inside[place(i, j)] = 1;
    }
    for (std::size_t k = 0; k < c_.size(); ++k) ASSERT_TRUE(inside[k] != 0 || std::isnan(c_[k])) << "at " << k;
  }

 private:
  [[nodiscard]] std::size_t place(int i, int j) const {
    return static_cast<std::size_t>(padding + i * call_.c_row + j);
  }

  V beta_;
  std::vector<V> a_, b_, c_, before_;
  GemmCall<V> call_{};
};

/// Calls the body for every instruction set.
template <class Body>
void for_each_set(const Body& body) {
  const auto sets = krait::test::instruction_sets();
  ASSERT_FALSE(sets.empty());
  for (const auto& set : sets) {
    SCOPED_TRACE(set.name);
    krait::test::use(set);
    body();
  }
  krait::test::use_best_instruction_set();
}

template <class V>
class HostGemm : public testing::Test {};
using Elements = testing::Types<float, double>;
TYPED_TEST_SUITE(HostGemm, Elements);

TYPED_TEST(HostGemm, EveryBlockAndEdge) {
  for_each_set([] {
    for (const int rows : {0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 33}) {
      for (const int columns : {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 31, 33, 47, 49, 63, 64, 65, 130}) {
        for (const int inner : {0, 1, 2, 33}) {
          SCOPED_TRACE(testing::Message() << rows << " x " << columns << " x " << inner);
          const bool odd = (rows + columns + inner) % 2 != 0;
          Tiles<TypeParam> tiles(rows, columns, inner, odd, inner == 2 ? TypeParam(-0.75) : TypeParam(0));
          krait::tile::host::gemm(tiles.call());
          tiles.expect_product();
          tiles.expect_rest_untouched();
        }
      }
    }
  });
}

TYPED_TEST(HostGemm, TilesOfAScan) {
  for_each_set([] {
    for (const bool transposed : {false, true}) {
      for (const double beta : {0.0, 1.0, 0.3}) {
        Tiles<TypeParam> tiles(33, 47, 129, transposed, static_cast<TypeParam>(beta));
        krait::tile::host::gemm(tiles.call());
        tiles.expect_product();
      }
    }
  });
}

TYPED_TEST(HostGemm, PartsHaveTheBitsOfTheWhole) {
  for_each_set([] {
    constexpr int rows = 29;
    constexpr int columns = 83;
    Tiles<TypeParam> whole(rows, columns, 40, false, TypeParam(0.5));
    krait::tile::host::gemm(whole.call());
    for (const int height : {1, 4, 12}) {
      for (const int width : {7, 32, columns}) {
        Tiles<TypeParam> parts(rows, columns, 40, false, TypeParam(0.5));
        for (int i = 0; i < rows; i += height) {
          for (int j = 0; j < columns; j += width) {
            auto call = parts.call();
            call.rows = std::min(height, rows - i);
            call.columns = std::min(width, columns - j);
            call.a += i * call.a_row;
            call.b += j;
            call.c += i * call.c_row + j;
            krait::tile::host::gemm(call);
          }
        }
        for (int i = 0; i < rows; ++i) {
          for (int j = 0; j < columns; ++j) ASSERT_EQ(parts.c(i, j), whole.c(i, j)) << i << ", " << j;
        }
      }
    }
  });
}

// Memory that is asked for is not read: it need not even be there.
TYPED_TEST(HostGemm, WhatIsAskedForChangesNothing) {
  for_each_set([] {
    for (const int tokens : {0, 1, 5, 100}) {
      Tiles<TypeParam> tiles(29, 83, 40, false, TypeParam(0.5));
      auto call = tiles.call();
      call.coming.count = 3;
      for (auto& rows : call.coming.rows) rows = {tokens, 100, nullptr, 4096};
      krait::tile::host::gemm(call);
      tiles.expect_product();
      tiles.expect_rest_untouched();
    }
  });
}

TYPED_TEST(HostGemm, NotANumberGoesWhereItBelongs) {
  for_each_set([] {
    Tiles<TypeParam> tiles(7, 37, 9, false, TypeParam(0));
    const_cast<TypeParam*>(tiles.call().a)[3 * tiles.call().a_row + 8] = std::numeric_limits<TypeParam>::quiet_NaN();
    krait::tile::host::gemm(tiles.call());
    for (int i = 0; i < 7; ++i) {
      for (int j = 0; j < 37; ++j) EXPECT_EQ(std::isnan(tiles.c(i, j)), i == 3);
    }
  });
}

}  // namespace
