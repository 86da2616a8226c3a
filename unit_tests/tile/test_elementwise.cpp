// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <krait/core/scalars.hpp>
#include <krait/tile/tile.hpp>
#include "team_sizes.hpp"

namespace {

using Exec = Kokkos::DefaultExecutionSpace;
using Member = Kokkos::TeamPolicy<Exec>::member_type;
using krait::tile::Matrix;

constexpr int rows = 7;
constexpr int columns = 11;

/// Every piece once, with the barriers that its caller owes: each value written by one thread is read by another.
struct Pieces {
  Matrix<const krait::bfloat16> in;
  Matrix<float> out;
  float* factors;

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    krait::tile::fill(team, columns, rows, -1.0F, out);
    krait::tile::for_each(team, rows, 1, [to = factors](int i, int) { to[i] = static_cast<float>(1 + i); });
    team.team_barrier();
    krait::tile::load(team, rows, columns - 1, in, out.transposed());
    team.team_barrier();
    krait::tile::scale_rows(team, rows, columns - 1, factors, out.transposed());
  }
};

TEST(TileElementwise, LoadTransposedAndScale) {
  Kokkos::View<krait::bfloat16**, Kokkos::LayoutRight, Exec> in("in", rows, columns);
  Kokkos::View<float**, Kokkos::LayoutRight, Exec> out("out", columns, rows);
  Kokkos::View<float*, Exec> factors("factors", rows);
  const auto source = Kokkos::create_mirror_view(in);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) source(i, j) = krait::bfloat16(static_cast<float>(10 * i + j));
  }
  Kokkos::deep_copy(in, source);
  const Pieces pieces{{in.data(), columns, 1}, {out.data(), rows, 1}, factors.data()};
  for (const int team : krait_test::team_sizes(pieces)) {
    Kokkos::parallel_for("krait::test::pieces", Kokkos::TeamPolicy<Exec>(1, team), pieces);
    const auto got = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), out);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns - 1; ++j) EXPECT_EQ(got(j, i), static_cast<float>((1 + i) * (10 * i + j)));
      EXPECT_EQ(got(columns - 1, i), -1.0F) << "outside the loaded part, team of " << team;
    }
  }
}

}  // namespace
