// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/tile.hpp>
#include <vector>
#include "team_sizes.hpp"

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using Member = Kokkos::TeamPolicy<Exec>::member_type;
using krait::tile::Matrix;

struct Case {
  int rows, columns, inner;
  bool transpose_a, transpose_b, transpose_c;
};

template <class V>
Matrix<V> matrix(V* data, int rows, int columns, int padding, bool transposed) {
  const Matrix<V> plain{data, (transposed ? rows : columns) + padding, 1};
  return transposed ? plain.transposed() : plain;
}

template <class VA, class VC>
struct Product {
  int rows, columns, inner;
  Matrix<const VA> a;
  Matrix<const VC> b;
  VC beta;
  Matrix<VC> c;

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    krait::tile::gemm(team, rows, columns, inner, a, b, beta, c);
  }
};

template <class V>
std::vector<double> random_values(const Kokkos::View<V*, Exec>& view, std::uint64_t stream) {
  auto host = Kokkos::create_mirror_view(view);
  std::vector<double> values(host.size());
  for (std::size_t i = 0; i < host.size(); ++i) {
    host(i) = V(krait::normal(7, stream, i));
    values[i] = static_cast<double>(host(i));
  }
  Kokkos::deep_copy(view, host);
  return values;
}

template <class VA, class VC>
void check(const Case& shape, VC beta) {
  constexpr int padding = 3;
  const auto elements = [&](int rows, int columns) { return (rows + padding) * (columns + padding); };
  Kokkos::View<VA*, Exec> a("a", elements(shape.rows, shape.inner));
  Kokkos::View<VC*, Exec> b("b", elements(shape.inner, shape.columns));
  Kokkos::View<VC*, Exec> c("c", elements(shape.rows, shape.columns));
  const auto va = random_values(a, 1);
  const auto vb = random_values(b, 2);
  const auto at = [](const std::vector<double>& values, const auto& m, const void* base, int i, int j) {
    using Pointer = decltype(m.data);
    return values[static_cast<std::size_t>(&m(i, j) - static_cast<Pointer>(base))];
  };
  Product<VA, VC> product{shape.rows,
                          shape.columns,
                          shape.inner,
                          matrix<const VA>(a.data(), shape.rows, shape.inner, padding, shape.transpose_a),
                          matrix<const VC>(b.data(), shape.inner, shape.columns, padding, shape.transpose_b),
                          beta,
                          matrix<VC>(c.data(), shape.rows, shape.columns, padding, shape.transpose_c)};
  std::vector<VC> first;
  for (const int team : krait_test::team_sizes(product)) {
    auto vc = random_values(c, 3);
    if (beta == VC(0)) {
      // With beta == 0 the old contents must not matter, whatever they are.
      Kokkos::deep_copy(c, std::numeric_limits<VC>::quiet_NaN());
    }
    Kokkos::parallel_for("krait::test::gemm", Kokkos::TeamPolicy<Exec>(1, team), product);
    const auto got = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), c);
    const double tolerance = (sizeof(VC) == 8 ? 1e-14 : 2e-6) * (10.0 + shape.inner);
    for (int i = 0; i < shape.rows; ++i) {
      for (int j = 0; j < shape.columns; ++j) {
        const std::size_t place = static_cast<std::size_t>(&product.c(i, j) - c.data());
        double want = beta == VC(0) ? 0.0 : static_cast<double>(beta) * vc[place];
        for (int l = 0; l < shape.inner; ++l) {
          want += at(va, product.a, a.data(), i, l) * at(vb, product.b, b.data(), l, j);
        }
        ASSERT_NEAR(static_cast<double>(got(place)), want, tolerance)
            << "element (" << i << ", " << j << "), team of " << team;
        const std::size_t index = static_cast<std::size_t>(i * shape.columns + j);
        if (index == first.size()) first.push_back(got(place));
        ASSERT_EQ(got(place), first[index]) << "element (" << i << ", " << j << "), team of " << team;
      }
    }
  }
}

TEST(TileGemm, EveryBlockAndEdge) {
  for (const int rows : {1, 3, 4, 5, 9}) {
    for (const int columns : {1, 7, 8, 16, 17, 40}) {
      for (const int inner : {0, 1, 2, 33}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << columns << " x " << inner);
        check<float, float>({rows, columns, inner, false, false, false}, 0.0F);
        check<double, double>({rows, columns, inner, false, false, false}, 0.5);
      }
    }
  }
}

TEST(TileGemm, LargerThanAPartOfATeam) {
  check<float, float>({33, 47, 65, false, false, false}, 0.0F);
  check<float, float>({128, 64, 32, true, false, false}, 1.0F);
  check<double, double>({33, 47, 65, true, false, false}, 0.5);
}

TEST(TileGemm, Transposes) {
  for (int bits = 0; bits < 8; ++bits) {
    const Case shape{13, 18, 21, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    SCOPED_TRACE(bits);
    check<float, float>(shape, 1.0F);
    check<double, double>(shape, 0.0);
  }
}

TEST(TileGemm, TwoByteOperandsAccumulateInSinglePrecision) {
  check<krait::bfloat16, float>({12, 24, 65, false, false, false}, 1.0F);
  check<krait::float16, float>({12, 24, 65, true, false, false}, 0.0F);
}

}  // namespace
