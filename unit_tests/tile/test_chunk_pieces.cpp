// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The pieces of a chunk of the scan in vectors, with every instruction set that this machine has, against the formulas
// in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/generic/token_rows.hpp>
#include <krait/tile/host/chunk_pairs.hpp>
#include <krait/tile/host/scan_chunk.hpp>
#include <krait/tile/host/token_rows.hpp>
#include <limits>
#include <vector>

#include <support/allclose.hpp>

#include "instruction_sets.hpp"

namespace {

using krait::accumulator_t;
using krait::test::all_close;
using krait::tile::scan_lanes;
using Accumulators = testing::Types<float, double>;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

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

int whole(int elements) { return (elements + scan_lanes - 1) / scan_lanes * scan_lanes; }

/// Rows of reproducible normal numbers; NaN behind the end of each.
template <class A>
struct Panel {
  int rows, columns, pitch;
  std::vector<A> values;

  Panel(std::uint64_t seed, int count, int width, int row_pitch, double deviation = 1)
      : rows(count),
        columns(width),
        pitch(row_pitch),
        values(static_cast<std::size_t>(count * row_pitch), std::numeric_limits<A>::quiet_NaN()) {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j)
        (*this)(i, j) = static_cast<A>(deviation * krait::normal(seed, 0, static_cast<std::uint64_t>(i * columns + j)));
    }
  }

  A& operator()(int i, int j) { return values[static_cast<std::size_t>(i * pitch + j)]; }
  const A& operator()(int i, int j) const { return values[static_cast<std::size_t>(i * pitch + j)]; }
  A* data() { return values.data(); }

  [[nodiscard]] std::vector<double> inner() const {
    std::vector<double> result;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) result.push_back(static_cast<double>((*this)(i, j)));
    }
    return result;
  }
};

template <class A>
krait::test::Tolerance rounding() {
  if constexpr (std::is_same_v<A, double>) return {.nmse = 1e-26, .relative = 1e-13};
  return {.nmse = 1e-11, .relative = 1e-5};
}

double softplus(double v) { return std::log1p(std::exp(v)); }

struct Extents {
  int Q, N, P;
  int heads = 1;
};

/// Chunks of some heads side by side, and what the token recurrence makes of them.
template <class A>
struct ScanOf {
  Extents e;
  std::vector<A> rates;
  bool skips;
  Panel<A> c, b, x, state, scores, skip, raw;
  Panel<A> y, weights, scaled, through, vectors;
  std::vector<double> want_y, want_state;

  ScanOf(const Extents& extents, double log_rate, bool with_skip)
      : e(extents),
        skips(with_skip),
        c(1, e.Q, e.N, e.N, 0.3),
        b(2, e.N, e.Q, whole(e.Q) + 16, 0.3),
        x(3, e.Q, e.heads * e.P, row()),
        state(4, e.N, e.heads * e.P, row()),
        scores(5, e.Q, e.Q, whole(e.Q)),
        skip(6, 1, e.heads * e.P, row()),
        raw(7, e.heads, e.Q, whole(e.Q)),
        y(8, e.Q, e.heads * e.P, row()),
        weights(9, e.Q, 0, whole(e.Q)),
        scaled(10, e.Q, 0, row()),
        through(11, 1, 0, row()),
        vectors(12, 4 * e.heads, 0, whole(e.Q)) {
    for (int h = 0; h < e.heads; ++h) rates.push_back(static_cast<A>(log_rate / (1 + h)));
    for (int m = 0; m < e.Q; ++m) {
      for (int k = 0; k < e.Q; ++k) {
        A sum = 0;
        for (int n = 0; n < e.N; ++n) sum += c(m, n) * b(n, k);
        // Above the diagonal lies what nobody computed.
        scores(m, k) = k <= m ? sum : std::numeric_limits<A>::quiet_NaN();
      }
    }
    recur();
  }

  [[nodiscard]] int row() const { return whole((e.heads - 1) * e.P + whole(e.P)); }

  void recur() {
    want_state = state.inner();
    for (int t = 0; t < e.Q; ++t) {
      for (int p = 0; p < e.heads * e.P; ++p) {
        const int h = p / e.P;
        const double delta = std::clamp(softplus(raw(h, t)), 0.01, 1.5);
        double sum = skips ? double{skip(0, p)} * double{x(t, p)} : 0.0;
        for (int n = 0; n < e.N; ++n) {
          double& s = want_state[static_cast<std::size_t>(n * e.heads * e.P + p)];
          s = std::exp(delta * double{rates[static_cast<std::size_t>(h)]}) * s +
              delta * double{b(n, t)} * double{x(t, p)};
          sum += double{c(t, n)} * s;
        }
        want_y.push_back(sum);
      }
    }
  }

  void run() {
    A* const v = vectors.data();
    const int vector = e.heads * whole(e.Q);
    // What is asked for has no bearing on the result.
    const krait::tile::ComingRows asked{e.Q, e.P, reinterpret_cast<const char*>(x.data()), 64};
    krait::tile::host::scan_heads(
        krait::tile::ScanHeads<A>{e.heads, rates.data(), 1, through.data(), 2, {asked, asked}, chunk(v, vector)});
  }

  krait::tile::ScanChunk<A> chunk(A* v, int vector) {
    return {e.Q,
            e.N,
            e.P,
            x.pitch,
            scores.pitch,
            b.pitch,
            e.N,
            y.pitch,
            state.pitch,
            std::numeric_limits<A>::quiet_NaN(),
            {A(0.01), A(1.5), true},
            c.data(),
            b.data(),
            scores.data(),
            x.data(),
            skips ? skip.data() : nullptr,
            state.data(),
            y.data(),
            raw.data(),
            weights.data(),
            scaled.data(),
            v,
            v + vector,
            v + 2 * vector,
            v + 3 * vector};
  }
};

template <class A>
class ChunkPieces : public testing::Test {};
TYPED_TEST_SUITE(ChunkPieces, Accumulators);

TYPED_TEST(ChunkPieces, ScanEqualsTheTokenRecurrence) {
  for_each_set([] {
    for (const Extents& e :
         {Extents{1, 1, 1}, Extents{5, 47, 33}, Extents{16, 16, 16}, Extents{32, 128, 64}, Extents{31, 7, 80},
          Extents{33, 20, 130}, Extents{3, 9, 47}, Extents{64, 64, 24}, Extents{32, 47, 33, 5}, Extents{16, 10, 33, 3},
          Extents{7, 3, 5, 4}, Extents{17, 5, 16, 9}, Extents{20, 6, 1, 3}, Extents{6, 21, 100, 2}}) {
      for (const double rate : {-1e-3, -1.0, -60.0}) {
        SCOPED_TRACE(testing::Message() << "Q " << e.Q << " N " << e.N << " P " << e.P << " heads " << e.heads << " A "
                                        << rate);
        ScanOf<TypeParam> scan(e, rate, e.N % 2 == 0);
        scan.run();
        EXPECT_TRUE(all_close(scan.y.inner(), scan.want_y, rounding<TypeParam>(), {e.Q, e.heads * e.P}));
        EXPECT_TRUE(all_close(scan.state.inner(), scan.want_state, rounding<TypeParam>(), {e.N, e.heads * e.P}));
      }
    }
  });
}

TYPED_TEST(ChunkPieces, StepsAndTheirSlopes) {
  using A = TypeParam;
  for_each_set([] {
    for (const bool softplus_wanted : {true, false}) {
      const std::vector<double> raw = {-90, -20, -3, -0.5, 0.02, 0.5, 1, 1.9, 2.5, 19, 25, 1e30, -1e30};
      const int count = static_cast<int>(raw.size());
      std::vector<A> delta(raw.begin(), raw.end()), slope(raw.size()), decay(raw.size());
      const krait::tile::StepRule<A> rule{A(0.01), A(20), softplus_wanted};
      krait::tile::host::chunk_steps(krait::tile::ChunkSteps<A>{count, A(-3), delta.data(), slope.data(), decay.data()},
                                     rule);
      std::vector<double> want_delta, want_slope, want_decay;
      for (const double r : raw) {
        const double v = static_cast<double>(static_cast<A>(r));
        const double free = !softplus_wanted || v > 20 ? v : softplus(v);
        const double inside = softplus_wanted && v <= 20 ? 1 / (1 + std::exp(-v)) : 1;
        want_delta.push_back(std::clamp(free, double{rule.dt_min}, 20.0));
        want_slope.push_back(free < double{rule.dt_min} || free > 20 ? 0 : inside);
        want_decay.push_back(-3 * want_delta.back());
      }
      const auto values = [](const std::vector<A>& v) { return std::vector<double>(v.begin(), v.end()); };
      EXPECT_TRUE(all_close(values(delta), want_delta, rounding<A>(), {count}));
      EXPECT_TRUE(all_close(values(slope), want_slope, rounding<A>(), {count}));
      EXPECT_TRUE(all_close(values(decay), want_decay, rounding<A>(), {count}));
    }
  });
}

TYPED_TEST(ChunkPieces, FactorsFromTheBeginningAndToTheEnd) {
  using A = TypeParam;
  for_each_set([] {
    for (const int Q : {1, 5, 16, 33}) {
      for (const bool with_leave : {true, false}) {
        const Panel<A> delta(1, 1, Q, Q);
        Panel<A> high(2, 1, Q, Q), low(3, 1, Q, Q), enter(4, 1, Q, Q), leave(5, 1, Q, Q), inputs(6, 1, Q, Q);
        // A fast token in the middle: behind it the high parts are coarse, and the low parts say what they lost.
        std::vector<double> sums;
        for (int j = 0; j < Q; ++j) {
          sums.push_back((j > 0 ? sums.back() : 0) - (j == Q / 2 ? 40.0 : 0.01 + 0.001 * j));
          high(0, j) = static_cast<A>(sums.back());
          low(0, j) = static_cast<A>(sums.back() - double{high(0, j)});
        }
        krait::tile::host::chunk_factors(krait::tile::ChunkFactors<A>{Q, high.data(), low.data(), delta.values.data(),
                                                                      enter.data(), with_leave ? leave.data() : nullptr,
                                                                      inputs.data()});
        std::vector<double> want_enter, want_leave, want_inputs;
        for (int j = 0; j < Q; ++j) {
          want_enter.push_back(std::exp(sums[static_cast<std::size_t>(j)]));
          want_leave.push_back(std::exp(sums.back() - sums[static_cast<std::size_t>(j)]));
          want_inputs.push_back(want_leave.back() * double{delta(0, j)});
        }
        EXPECT_TRUE(all_close(enter.inner(), want_enter, rounding<A>(), {Q}));
        EXPECT_TRUE(all_close(inputs.inner(), want_inputs, rounding<A>(), {Q}));
        if (with_leave) {
          EXPECT_TRUE(all_close(leave.inner(), want_leave, rounding<A>(), {Q}));
        }
      }
    }
  });
}

TYPED_TEST(ChunkPieces, PairsAndTheirSums) {
  using A = TypeParam;
  for_each_set([] {
    for (const int Q : {1, 3, 16, 17, 32, 45}) {
      SCOPED_TRACE(testing::Message() << "Q " << Q);
      const int pitch = whole(Q);
      const Panel<A> scores(1, Q, Q, pitch), dscores(3, Q, Q, pitch), delta(4, 1, Q, pitch);
      const Panel<A> pairs(2, Q, Q, pitch);
      Panel<A> high(5, 1, Q, pitch), low(6, 1, Q, pitch, 0), weights(7, Q, Q, pitch), columns(8, 1, Q, pitch),
          between(9, 1, Q, pitch);
      double sum = 0;
      for (int j = 0; j < Q; ++j) {
        sum -= 0.3 * std::abs(double{high(0, j)});
        high(0, j) = static_cast<A>(sum);
        low(0, j) = static_cast<A>(sum - double{high(0, j)});
      }
      std::vector<double> want_dscores, want_weights, want_columns(static_cast<std::size_t>(Q)), want_between;
      std::vector<std::vector<double>> product(static_cast<std::size_t>(Q));
      for (int m = 0; m < Q; ++m) {
        for (int k = 0; k < Q; ++k) {
          const double f =
              k <= m ? std::exp((double{high(0, m)} - double{high(0, k)}) + (double{low(0, m)} - double{low(0, k)}))
                     : 0.0;
          want_weights.push_back(f * double{scores(m, k)});
          want_dscores.push_back(double{dscores(m, k)} + f * double{pairs(m, k)} * double{delta(0, k)});
          product[static_cast<std::size_t>(m)].push_back(f * double{scores(m, k)} * double{pairs(m, k)});
          want_columns[static_cast<std::size_t>(k)] += product[static_cast<std::size_t>(m)].back();
        }
      }
      for (int j = 0; j < Q; ++j) {
        double total = 0;
        for (int m = j; m < Q; ++m) {
          for (int k = 0; k < j; ++k)
            total += double{delta(0, k)} * product[static_cast<std::size_t>(m)][static_cast<std::size_t>(k)];
        }
        want_between.push_back(total);
      }
      Panel<A> got_scores = scores, got_pairs = pairs, got_dscores = dscores, got_delta = delta;
      for (int m = 0; m < Q; ++m) {
        for (int k = m + 1; k < Q; ++k) {
          got_scores(m, k) = std::numeric_limits<A>::quiet_NaN();
          got_pairs(m, k) = std::numeric_limits<A>::quiet_NaN();
        }
      }
      krait::tile::host::chunk_pairs(krait::tile::ChunkPairs<A>{Q, pitch, high.data(), low.data(), got_delta.data(),
                                                                got_scores.data(), got_pairs.data(), got_dscores.data(),
                                                                weights.data(), columns.data(), between.data()});
      EXPECT_TRUE(all_close(weights.inner(), want_weights, rounding<A>(), {Q, Q}));
      EXPECT_TRUE(all_close(got_dscores.inner(), want_dscores, rounding<A>(), {Q, Q}));
      EXPECT_TRUE(all_close(columns.inner(), want_columns, rounding<A>(), {Q}));
      EXPECT_TRUE(all_close(between.inner(), want_between, rounding<A>(), {Q}));
    }
  });
}

TYPED_TEST(ChunkPieces, DotsAndScalings) {
  using A = TypeParam;
  for_each_set([] {
    for (const auto& [rows, columns] : {std::pair{1, 1}, std::pair{7, 33}, std::pair{32, 64}, std::pair{5, 17}}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << columns);
      const Panel<A> a(1, rows, columns, columns + 3), b(2, rows, columns, columns + 5),
          more(3, rows, columns, columns);
      Panel<A> by_row(4, 1, rows, rows), by_column(5, 1, columns, columns), sum = more, scaled = a, skipped = a,
                                                                            across = a;
      Panel<A> row_factors(6, 1, rows, rows), column_factors(7, 1, columns, columns);
      std::vector<double> want_rows(static_cast<std::size_t>(rows)), want_columns(static_cast<std::size_t>(columns)),
          want_sum, want_scaled, want_skipped, want_across;
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          const double product = double{a(i, j)} * double{b(i, j)};
          want_rows[static_cast<std::size_t>(i)] += product;
          want_columns[static_cast<std::size_t>(j)] += product;
          want_sum.push_back(double{more(i, j)} + double{a(i, j)});
          want_scaled.push_back(double{row_factors(0, i)} * double{a(i, j)});
          want_skipped.push_back(want_scaled.back() + double{column_factors(0, j)} * double{b(i, j)});
          want_across.push_back(double{column_factors(0, j)} * double{a(i, j)});
        }
      }
      const krait::tile::host::TwoPanels<A> both{rows, columns, a.values.data(), a.pitch, b.values.data(), b.pitch};
      krait::tile::host::row_dots(both, by_row.data());
      krait::tile::host::column_dots(both, by_column.data(), sum.data(), sum.pitch);
      krait::tile::host::scale_rows<A>(rows, columns, row_factors.data(), scaled.data(), scaled.pitch, nullptr, nullptr,
                                       0);
      krait::tile::host::scale_rows<A>(rows, columns, row_factors.data(), skipped.data(), skipped.pitch,
                                       column_factors.data(), b.values.data(), b.pitch);
      krait::tile::host::scale_columns<A>(rows, columns, column_factors.data(), across.data(), across.pitch);
      EXPECT_TRUE(all_close(by_row.inner(), want_rows, rounding<A>(), {rows}));
      EXPECT_TRUE(all_close(by_column.inner(), want_columns, rounding<A>(), {columns}));
      EXPECT_TRUE(all_close(sum.inner(), want_sum, rounding<A>(), {rows, columns}));
      EXPECT_TRUE(all_close(scaled.inner(), want_scaled, rounding<A>(), {rows, columns}));
      EXPECT_TRUE(all_close(skipped.inner(), want_skipped, rounding<A>(), {rows, columns}));
      EXPECT_TRUE(all_close(across.inner(), want_across, rounding<A>(), {rows, columns}));
    }
  });
}

template <class T>
class TokenRows : public testing::Test {};
TYPED_TEST_SUITE(TokenRows, Scalars);

/// Rows at any distance and address, also past the cache; what lies between them is not written.
TYPED_TEST(TokenRows, EqualThePortableOnes) {
  using T = TypeParam;
  using A = accumulator_t<T>;
  constexpr int tokens = 5;
  for (const std::int64_t channels : {1, 16, 33, 64}) {
    for (const int shift : {0, 3}) {
      SCOPED_TRACE(testing::Message() << channels << " channels, shift " << shift);
      const std::int64_t pitch = channels + 32;
      std::vector<T> x(static_cast<std::size_t>(tokens * pitch + 64)), z(x.size());
      std::vector<A> panel(static_cast<std::size_t>(tokens * (channels + 7)));
      for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<T>(static_cast<A>(krait::normal(1, 0, i)));
        z[i] = static_cast<T>(static_cast<A>(krait::normal(2, 0, i)));
      }
      for (std::size_t i = 0; i < panel.size(); ++i) panel[i] = static_cast<A>(krait::normal(3, 0, i));
      const auto rows_of = [&](auto* memory) {
        std::vector<decltype(memory)> rows;
        for (int t = 0; t < tokens; ++t) rows.push_back(memory + shift + t * pitch);
        return rows;
      };
      const auto values = [](const auto& v) { return std::vector<double>(v.begin(), v.end()); };
      const auto run = [&](auto load, auto store, bool gated, bool past_cache) {
        std::vector<A> loaded(panel.size(), A(-7));
        std::vector<T> out(x.size(), T(A(-7))), y(out);
        load(krait::tile::InputRows<T, A>{tokens, channels, x.data() + shift, pitch, loaded.data(), channels + 7});
        const auto out_rows = rows_of(out.data()), y_rows = rows_of(y.data());
        const auto z_rows = rows_of(static_cast<const T*>(z.data()));
        store(krait::tile::OutputRows<T, A>{tokens, channels, panel.data(), channels + 7, past_cache,
                                            gated ? z_rows.data() : nullptr, gated ? y_rows.data() : nullptr,
                                            out_rows.data()});
        return std::array{values(loaded), values(out), values(y)};
      };
      constexpr double unit = std::is_same_v<T, double>            ? 4e-15
                              : std::is_same_v<T, float>           ? 1e-6
                              : std::is_same_v<T, krait::bfloat16> ? 0x1p-8
                                                                   : 0x1p-11;
      for (const bool gated : {false, true}) {
        const auto want = run([](const auto& r) { krait::tile::generic::load_rows(r); },
                              [](const auto& r) { krait::tile::generic::store_rows(r); }, gated, false);
        for_each_set([&] {
          for (const bool past_cache : {false, true}) {
            const auto got = run([](const auto& r) { krait::tile::host::load_rows(r); },
                                 [](const auto& r) { krait::tile::host::store_rows(r); }, gated, past_cache);
            EXPECT_EQ(got[0], want[0]);
            EXPECT_TRUE(all_close(got[1], want[1], {.nmse = unit * unit, .relative = unit},
                                  {static_cast<std::int64_t>(want[1].size())}));
            EXPECT_EQ(got[2], want[2]);
          }
        });
      }
    }
  }
}

}  // namespace
