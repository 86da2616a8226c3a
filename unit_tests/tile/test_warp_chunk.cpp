// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A chunk of the scan as the warps of a GPU work on it, lane by lane on a host, against the token recurrence in double
// precision. Teams of several host threads are as many warps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/scan_chunk.hpp>
#include <limits>
#include <support/allclose.hpp>
#include <vector>

#include "team_sizes.hpp"

namespace {

using namespace krait::tile::cuda;
using krait::tile::ScanChunk;
using Exec = Kokkos::DefaultHostExecutionSpace;
using Member = Kokkos::TeamPolicy<Exec>::member_type;

struct Extents {
  int Q, N, P;
};

/// A tile of whole steps, 64-byte aligned; zero where it has no elements.
template <class E>
struct Tile {
  int pitch;
  Kokkos::View<E*, Kokkos::HostSpace> values;

  Tile(std::uint64_t seed, int rows, int columns, int row_pitch, double deviation)
      : pitch(row_pitch), values("krait::test::tile", static_cast<std::size_t>(whole_tiles(rows) * row_pitch)) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) {
        (*this)(i, j) =
            E(static_cast<float>(deviation * krait::normal(seed, 0, static_cast<std::uint64_t>(i * columns + j))));
      }
    }
  }

  E& operator()(int i, int j) const { return values(static_cast<std::size_t>(i * pitch + j)); }
  [[nodiscard]] E* data() const { return values.data(); }

  [[nodiscard]] std::vector<double> inner(int rows, int columns) const {
    std::vector<double> result;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) result.push_back(static_cast<double>((*this)(i, j)));
    }
    return result;
  }
};

template <class E>
struct Problem {
  Extents e;
  double rate;
  Tile<E> c, b, x, weights;
  Tile<float> state, y, skip, raw, vectors;
  std::vector<double> want_y, want_state;

  Problem(const Extents& extents, double log_rate, double fast)
      : e(extents),
        rate(log_rate),
        c(1, e.Q, e.N, operand_pitch<E>(e.N), 0.3),
        b(2, e.Q, e.N, operand_pitch<E>(e.N), 0.3),
        x(3, e.Q, e.P, tile_pitch(e.P), 1),
        weights(4, e.Q, 0, operand_pitch<E>(e.Q), 0),
        state(5, e.P, e.N, tile_pitch(e.N), 1),
        y(6, e.Q, 0, tile_pitch(e.P), 0),
        skip(7, 1, e.P, tile_pitch(e.P), 1),
        raw(8, 1, e.Q, operand_pitch<E>(e.Q), 1),
        vectors(9, 4, 0, operand_pitch<E>(e.Q), 0) {
    // One step so long that hardly anything is left of what came before.
    if (e.Q > 2) raw(0, e.Q / 2) = static_cast<float>(fast);
    recur();
    // Nothing of what is only written may be read.
    Kokkos::deep_copy(y.values, std::numeric_limits<float>::quiet_NaN());
    Kokkos::deep_copy(vectors.values, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t i = 0; i < weights.values.size(); ++i) {
      weights.values(i) = E(std::numeric_limits<float>::quiet_NaN());
    }
  }

  void recur() {
    std::vector<double> S = state.inner(e.P, e.N);
    for (int m = 0; m < e.Q; ++m) {
      const double delta = std::min(std::log1p(std::exp(static_cast<double>(raw(0, m)))), 20.0);
      for (int p = 0; p < e.P; ++p) {
        const double input = static_cast<double>(x(m, p));
        double output = static_cast<double>(skip(0, p)) * input;
        for (int n = 0; n < e.N; ++n) {
          double& s = S[static_cast<std::size_t>(p * e.N + n)];
          s = std::exp(delta * rate) * s + delta * input * static_cast<double>(b(m, n));
          output += s * static_cast<double>(c(m, n));
        }
        want_y.push_back(output);
      }
    }
    want_state = S;
  }

  [[nodiscard]] ScanChunk<float, E> chunk() const {
    ScanChunk<float, E> k{};
    k.tokens = e.Q;
    k.d_state = e.N;
    k.channels = e.P;
    k.row = x.pitch;
    k.token_row = weights.pitch;
    k.b_row = b.pitch;
    k.c_row = c.pitch;
    k.y_row = y.pitch;
    k.state_row = state.pitch;
    k.log_rate = static_cast<float>(rate);
    k.rule = {0.0F, 20.0F, true};
    k.c = c.data();
    k.b = b.data();
    k.x = x.data();
    k.skip = skip.data();
    k.state = state.data();
    k.y = y.data();
    k.steps = raw.data();
    k.weights = weights.data();
    k.high = vectors.data();
    k.low = vectors.data() + vectors.pitch;
    k.enter = vectors.data() + 2 * vectors.pitch;
    k.leave = vectors.data() + 3 * vectors.pitch;
    return k;
  }
};

template <Exponentials How, class E>
struct Work {
  ScanChunk<float, E> chunk;
  ProductKind kind;
  void operator()(const Member& team) const { scan_chunk<How>(team, kind, chunk); }
};

template <class E>
krait::test::Tolerance rounding(bool tf32) {
  if constexpr (std::is_same_v<E, float>) {
    return tf32 ? krait::test::Tolerance{.nmse = 1e-6, .relative = 1e-2}
                : krait::test::Tolerance{.nmse = 1e-11, .relative = 1e-5};
  }
  return std::is_same_v<E, krait::float16> ? krait::test::Tolerance{.nmse = 1e-6, .relative = 1e-2}
                                           : krait::test::Tolerance{.nmse = 2.5e-5, .relative = 5e-2};
}

template <Exponentials How, class E>
void check(const Extents& e, double rate, double fast, bool tf32) {
  SCOPED_TRACE(testing::Message() << e.Q << " tokens, d_state " << e.N << ", " << e.P << " channels, rate " << rate);
  std::vector<double> first_y, first_state;
  for (const int team : {1, 2, 3}) {
    SCOPED_TRACE(testing::Message() << team << " warps");
    const Problem<E> problem(e, rate, fast);
    const Work<How, E> work{problem.chunk(), {true, tf32}};
    if (team > Kokkos::TeamPolicy<Exec>(1, 1).team_size_max(work, Kokkos::ParallelForTag())) break;
    Kokkos::parallel_for("krait::test::scan_chunk", Kokkos::TeamPolicy<Exec>(1, team), work);
    Kokkos::fence();
    const auto y = problem.y.inner(e.Q, e.P);
    const auto state = problem.state.inner(e.P, e.N);
    EXPECT_TRUE(krait::test::all_close(y, problem.want_y, rounding<E>(tf32)));
    EXPECT_TRUE(krait::test::all_close(state, problem.want_state, rounding<E>(tf32)));
    for (int p = 0; p < e.P; ++p) {
      for (int n = e.N; n < whole_tiles(e.N); ++n) ASSERT_EQ(problem.state(p, n), 0.0F) << "behind the state";
    }
    if (team == 1) {
      first_y = y;
      first_state = state;
    }
    EXPECT_EQ(y, first_y);
    EXPECT_EQ(state, first_state);
  }
}

template <class E>
class WarpChunk : public testing::Test {};
using OperandTypes = testing::Types<krait::bfloat16, krait::float16, float>;
TYPED_TEST_SUITE(WarpChunk, OperandTypes);

TYPED_TEST(WarpChunk, IsTheRecurrence) {
  for (const Extents& e : {Extents{64, 128, 64}, Extents{1, 16, 16}, Extents{16, 8, 5}, Extents{33, 19, 40},
                           Extents{47, 64, 80}, Extents{2, 1, 1}, Extents{65, 33, 17}}) {
    check<Exponentials::factored, TypeParam>(e, -0.05, 20, false);
    check<Exponentials::factored, TypeParam>(e, -4.0, 30, false);
  }
}

TYPED_TEST(WarpChunk, DirectExponentialsToo) {
  check<Exponentials::direct, TypeParam>({96, 32, 32}, -0.05, 20, false);
  check<Exponentials::direct, TypeParam>({96, 32, 32}, -4.0, 30, false);
}

TEST(WarpChunkInTf32, IsTheRecurrence) {
  check<Exponentials::factored, float>({64, 128, 64}, -0.05, 20, true);
  check<Exponentials::factored, float>({33, 19, 40}, -1.0, 20, true);
}

/// Factored exponentials differ from direct ones by rounding only, however fast the decay.
TEST(WarpChunkExponentials, FactoredIsDirect) {
  for (const double rate : {-1e-4, -0.1, -10.0}) {
    const Extents e{96, 16, 16};
    const Problem<float> direct(e, rate, 15);
    const Problem<float> factored(e, rate, 15);
    Kokkos::parallel_for("krait::test::direct", Kokkos::TeamPolicy<Exec>(1, 1),
                         Work<Exponentials::direct, float>{direct.chunk(), {true, false}});
    Kokkos::parallel_for("krait::test::factored", Kokkos::TeamPolicy<Exec>(1, 1),
                         Work<Exponentials::factored, float>{factored.chunk(), {true, false}});
    Kokkos::fence();
    for (int m = 0; m < e.Q; ++m) {
      for (int k = 0; k <= m; ++k) {
        ASSERT_NEAR(factored.weights(m, k), direct.weights(m, k), 1e-6 * std::abs(direct.weights(m, k)) + 1e-7)
            << "rate " << rate << ", pair " << m << ", " << k;
      }
    }
  }
}

}  // namespace
