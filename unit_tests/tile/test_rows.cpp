// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The row functions in vectors, with every instruction set that this machine has, against the portable ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/generic/conv_rows.hpp>
#include <krait/tile/generic/norm_rows.hpp>
#include <krait/tile/host/conv_rows.hpp>
#include <krait/tile/host/norm_rows.hpp>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include <support/allclose.hpp>

#include "instruction_sets.hpp"

namespace {

using krait::accumulator_t;
using krait::test::all_close;
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;

/// Rows of reproducible normal numbers. They begin `shift` elements behind a multiple of 64 bytes.
template <class V>
class Rows {
 public:
  Rows(std::uint64_t seed, int count, std::int64_t width, double deviation = 1, std::int64_t shift = 0)
      : pitch_((width + shift + 63) / 64 * 64 + 64), memory_(static_cast<std::size_t>(count * pitch_)) {
    for (std::size_t i = 0; i < memory_.size(); ++i)
      memory_[i] = static_cast<V>(static_cast<accumulator_t<V>>(deviation * krait::normal(seed, 0, i)));
    for (int r = 0; r < count; ++r) rows_.push_back(memory_.data() + shift + r * pitch_);
  }
  Rows(const Rows&) = delete;
  Rows& operator=(const Rows&) = delete;

  [[nodiscard]] V* data() { return rows_.front(); }
  [[nodiscard]] std::int64_t pitch() const { return pitch_; }
  [[nodiscard]] V* const* pointers() const { return rows_.data(); }
  /// Everything, with what lies between the rows: nothing may be written there.
  [[nodiscard]] std::vector<double> values() const { return {memory_.begin(), memory_.end()}; }

 private:
  template <class U>
  struct Aligned {
    using value_type = U;
    U* allocate(std::size_t n) { return static_cast<U*>(::operator new(n * sizeof(U), std::align_val_t{64})); }
    void deallocate(U* p, std::size_t) { ::operator delete(p, std::align_val_t{64}); }
    bool operator==(const Aligned&) const = default;
  };

  std::int64_t pitch_;
  std::vector<V, Aligned<V>> memory_;
  std::vector<V*> rows_;
};

/// How far vectors may differ from the portable code: the rounding of a few operations, and of the result.
template <class V>
krait::test::Tolerance rounding() {
  if constexpr (std::is_same_v<V, double>) return {.nmse = 1e-29, .relative = 2e-15};
  if constexpr (std::is_same_v<V, float>) return {.nmse = 1e-12, .relative = 1e-6};
  constexpr double unit = std::is_same_v<V, krait::bfloat16> ? 0x1p-8 : 0x1p-11;
  return {.nmse = unit * unit, .relative = unit};
}

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

struct ConvCase {
  std::int64_t channels;
  int taps;
  int tokens;
  bool silu = true;
  bool past_cache = false;
  std::int64_t shift = 0;
  double deviation = 1;
};

std::vector<ConvCase> conv_cases() {
  std::vector<ConvCase> cases;
  for (const int taps : {1, 2, 3, 4, 5, 16}) {
    for (const int tokens : {1, 7, 8, 9, 19}) {
      for (const bool silu : {true, false})
        cases.push_back({.channels = 37, .taps = taps, .tokens = tokens, .silu = silu});
    }
  }
  for (const std::int64_t channels : {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 130})
    cases.push_back({.channels = channels, .taps = 4, .tokens = 11});
  for (const std::int64_t shift : {0, 1, 8})
    cases.push_back({.channels = 70, .taps = 4, .tokens = 11, .past_cache = true, .shift = shift});
  cases.push_back({.channels = 70, .taps = 3, .tokens = 10, .deviation = 100});
  return cases;
}

/// The memory of one call, made anew for the portable code and for each instruction set.
template <class T>
struct ConvData {
  using A = accumulator_t<T>;
  ConvCase c;
  Rows<A> weight{1, 16, c.channels};
  Rows<A> bias{2, 1, c.channels};
  Rows<A> history{3, 16, c.channels};
  Rows<A> q{4, 16, c.channels};
  Rows<A> dweight{5, 16, c.channels};
  Rows<A> dbias{6, 1, c.channels};
  Rows<T> x{7, 20, c.channels, c.deviation, c.shift};
  Rows<T> dout{8, 20, c.channels, 1, c.shift};
  Rows<T> out{9, 20, c.channels, 1, c.shift};

  explicit ConvData(const ConvCase& which) : c(which) {}

  /// All rows behind those of the call are announced.
  [[nodiscard]] int next() const { return 20 - c.tokens; }

  [[nodiscard]] krait::tile::ConvStrip<A> strip() {
    return {c.channels, weight.pitch(), c.taps, c.silu, c.past_cache, weight.data(), bias.data()};
  }
  [[nodiscard]] krait::tile::ConvTokens<T, A> tokens() { return {c.tokens, next(), x.pointers(), history.data()}; }
  [[nodiscard]] krait::tile::ConvGradientTokens<T, A> gradient_tokens(bool sums, bool dx) {
    return {c.tokens,
            next(),
            x.pointers(),
            dout.pointers(),
            history.data(),
            q.data(),
            sums ? dweight.data() : nullptr,
            dbias.data(),
            dx ? out.pointers() : nullptr};
  }

  void expect_equal(const ConvData& want) const {
    EXPECT_TRUE(all_close(history.values(), want.history.values(), krait::test::exact()));
    EXPECT_TRUE(all_close(q.values(), want.q.values(), rounding<A>()));
    EXPECT_TRUE(all_close(dweight.values(), want.dweight.values(), rounding<A>()));
    EXPECT_TRUE(all_close(dbias.values(), want.dbias.values(), rounding<A>()));
    EXPECT_TRUE(all_close(out.values(), want.out.values(), rounding<T>()));
  }
};

std::string text_of(const ConvCase& c) {
  return std::to_string(c.channels) + " channels, " + std::to_string(c.taps) + " taps, " + std::to_string(c.tokens) +
         " tokens, silu " + std::to_string(c.silu) + ", past the cache " + std::to_string(c.past_cache) + ", shift " +
         std::to_string(c.shift) + ", deviation " + std::to_string(c.deviation);
}

template <class T>
class RowFunctions : public testing::Test {};
TYPED_TEST_SUITE(RowFunctions, Scalars);

TYPED_TEST(RowFunctions, ConvolutionIsThePortableOne) {
  for (const ConvCase& c : conv_cases()) {
    SCOPED_TRACE(text_of(c));
    ConvData<TypeParam> want(c);
    krait::tile::generic::conv_rows(want.strip(), want.tokens(), want.out.pointers());
    for_each_set([&] {
      ConvData<TypeParam> got(c);
      krait::tile::host::conv_rows(got.strip(), got.tokens(), got.out.pointers());
      got.expect_equal(want);
    });
  }
}

TYPED_TEST(RowFunctions, GradientOfTheConvolutionIsThePortableOne) {
  for (const ConvCase& c : conv_cases()) {
    for (const bool sums : {true, false}) {
      for (const bool dx : {true, false}) {
        SCOPED_TRACE(text_of(c) + (sums ? ", sums" : "") + (dx ? ", dx" : ""));
        ConvData<TypeParam> want(c);
        krait::tile::generic::conv_gradient_rows(want.strip(), want.gradient_tokens(sums, dx));
        for_each_set([&] {
          ConvData<TypeParam> got(c);
          krait::tile::host::conv_gradient_rows(got.strip(), got.gradient_tokens(sums, dx));
          got.expect_equal(want);
        });
      }
    }
  }
}

TYPED_TEST(RowFunctions, EdgeOfTheConvolutionIsThePortableOne) {
  using A = accumulator_t<TypeParam>;
  for (const ConvCase& c : conv_cases()) {
    for (const int first_tap : {0, 1}) {
      for (const bool incoming : {true, false}) {
        SCOPED_TRACE(text_of(c));
        const auto from = [&](ConvData<TypeParam>& data) -> const A* { return incoming ? data.dbias.data() : nullptr; };
        ConvData<TypeParam> want(c);
        krait::tile::generic::conv_edge_row(want.strip(), want.q.data(), first_tap, from(want), want.out.data());
        for_each_set([&] {
          ConvData<TypeParam> got(c);
          krait::tile::host::conv_edge_row(got.strip(), got.q.data(), first_tap, from(got), got.out.data());
          got.expect_equal(want);
        });
      }
    }
  }
}

/// Eight tokens at once, one at a time, or in two calls: the bits are the same, since runs may be cut anywhere.
TYPED_TEST(RowFunctions, TokensInSeveralCallsGiveTheSameBits) {
  for (const int taps : {2, 3, 4, 5}) {
    const ConvCase c{.channels = 37, .taps = taps, .tokens = 17};
    for_each_set([&] {
      ConvData<TypeParam> want(c);
      krait::tile::host::conv_gradient_rows(want.strip(), want.gradient_tokens(true, true));
      for (const int part : {1, 3, 8}) {
        ConvData<TypeParam> got(c);
        for (int t = 0; t < c.tokens; t += part) {
          auto tokens = got.gradient_tokens(true, true);
          tokens.count = std::min(part, c.tokens - t);
          tokens.x += t;
          tokens.dout += t;
          tokens.dx += t;
          krait::tile::host::conv_gradient_rows(got.strip(), tokens);
        }
        EXPECT_EQ(got.out.values(), want.out.values());
        EXPECT_EQ(got.q.values(), want.q.values());
        EXPECT_EQ(got.dweight.values(), want.dweight.values());
      }
    });
  }
}

struct NormCase {
  std::int64_t count;
  bool gated;
  bool gate_first;
  bool parameters;
  bool past_cache = false;
  std::int64_t shift = 0;
  double deviation = 1;
};

std::vector<NormCase> norm_cases() {
  std::vector<NormCase> cases;
  for (const std::int64_t count : {1, 2, 7, 8, 16, 17, 33, 130}) {
    for (const bool parameters : {true, false}) {
      cases.push_back({count, false, true, parameters});
      for (const bool first : {true, false}) cases.push_back({count, true, first, parameters});
    }
  }
  for (const std::int64_t shift : {0, 1, 8}) cases.push_back({70, true, true, true, true, shift});
  cases.push_back({70, true, true, true, false, 0, 100});
  return cases;
}

template <class T>
struct NormData {
  using A = accumulator_t<T>;
  NormCase c;
  Rows<T> x{1, 1, c.count, 1, c.shift};
  Rows<T> z{2, 1, c.count, c.deviation, c.shift};
  Rows<T> dout{3, 1, c.count, 1, c.shift};
  Rows<A> weight{4, 1, c.count};
  Rows<A> bias{5, 1, c.count};
  Rows<A> scratch{6, 1, c.count};
  Rows<T> out{7, 1, c.count, 1, c.shift};
  Rows<T> dx{8, 1, c.count, 1, c.shift};
  Rows<T> dz{9, 1, c.count, 1, c.shift};
  Rows<A> dweight{10, 1, c.count};
  Rows<A> dbias{11, 1, c.count};

  explicit NormData(const NormCase& which) : c(which) {}

  [[nodiscard]] krait::tile::NormGroup<T, A> group(std::int64_t groups = 1) {
    return {c.count / groups,
            x.data(),
            c.gated ? z.data() : nullptr,
            c.parameters ? weight.data() : nullptr,
            c.parameters ? bias.data() : nullptr,
            c.gate_first,
            c.past_cache,
            {x.data(), c.gated ? z.data() : nullptr, dout.data()},
            groups};
  }
  [[nodiscard]] krait::tile::NormGradients<T, A> gradients() {
    return {dx.data(), c.gated ? dz.data() : nullptr, c.parameters ? out.data() : nullptr,
            c.parameters ? dweight.data() : nullptr, c.parameters ? dbias.data() : nullptr};
  }

  void expect_equal(const NormData& want) const {
    EXPECT_TRUE(all_close(out.values(), want.out.values(), rounding<T>()));
    EXPECT_TRUE(all_close(dx.values(), want.dx.values(), rounding<T>()));
    EXPECT_TRUE(all_close(dz.values(), want.dz.values(), rounding<T>()));
    EXPECT_TRUE(all_close(dweight.values(), want.dweight.values(), rounding<A>()));
    EXPECT_TRUE(all_close(dbias.values(), want.dbias.values(), rounding<A>()));
  }
};

template <class A>
void expect_close(A got, A want, double size) {
  EXPECT_NEAR(static_cast<double>(got), static_cast<double>(want), size * (std::is_same_v<A, double> ? 1e-14 : 4e-6));
}

TYPED_TEST(RowFunctions, NormIsThePortableOne) {
  using A = accumulator_t<TypeParam>;
  for (const NormCase& c : norm_cases()) {
    for (const std::int64_t groups : {1, 2, 11, 65}) {
      if (c.count % groups != 0) continue;
      SCOPED_TRACE(std::to_string(c.count) + " features in groups: " + std::to_string(groups));
      NormData<TypeParam> want(c);
      std::vector<A> scales;
      for (std::int64_t g = 0; g < groups; ++g) scales.push_back(A(0.7) + A(0.01) * static_cast<A>(g));
      std::vector<A> squares(scales.size(), A(-1));
      krait::tile::generic::norm_load(want.group(groups), want.scratch.data(), squares.data());
      krait::tile::generic::norm_store(want.group(groups), scales.data(), want.scratch.data(), want.out.data());
      for_each_set([&] {
        NormData<TypeParam> got(c);
        std::vector<A> sums(scales.size(), A(-1));
        krait::tile::host::norm_load(got.group(groups), got.scratch.data(), sums.data());
        for (std::size_t g = 0; g < sums.size(); ++g) expect_close(sums[g], squares[g], squares[g]);
        krait::tile::host::norm_store(got.group(groups), scales.data(), got.scratch.data(), got.out.data());
        got.expect_equal(want);
      });
    }
  }
}

TYPED_TEST(RowFunctions, GradientOfTheNormIsThePortableOne) {
  using A = accumulator_t<TypeParam>;
  for (const NormCase& c : norm_cases()) {
    SCOPED_TRACE(c.count);
    NormData<TypeParam> want(c);
    const auto sums = krait::tile::generic::norm_gradient_sums(want.group(), want.dout.data(), want.scratch.data());
    krait::tile::generic::norm_gradient(want.group(), want.dout.data(), want.scratch.data(), A(0.7), A(0.3),
                                        want.gradients());
    for_each_set([&] {
      NormData<TypeParam> got(c);
      const auto more = krait::tile::host::norm_gradient_sums(got.group(), got.dout.data(), got.scratch.data());
      expect_close(more.squares, sums.squares, sums.squares);
      expect_close(more.products, sums.products, c.deviation * static_cast<double>(c.count));
      krait::tile::host::norm_gradient(got.group(), got.dout.data(), got.scratch.data(), A(0.7), A(0.3),
                                       got.gradients());
      got.expect_equal(want);
    });
  }
}

/// What is not a number stays so and does not spread; the largest numbers have gates of 0 and 1.
TYPED_TEST(RowFunctions, GatesOfSpecialNumbers) {
  using A = accumulator_t<TypeParam>;
  const double largest = std::is_same_v<TypeParam, krait::float16> ? 65504 : 3e38;
  const double special[] = {std::numeric_limits<double>::quiet_NaN(), largest, -largest, 0, -0.0, 87, -87, 88, -88};
  constexpr std::int64_t count = 9;
  for_each_set([&] {
    NormData<TypeParam> got({count, true, true, false});
    NormData<TypeParam> want({count, true, true, false});
    for (auto* const data : {&got, &want}) {
      for (std::int64_t i = 0; i < count; ++i) {
        data->z.data()[i] = static_cast<TypeParam>(static_cast<A>(special[i]));
        data->x.data()[i] = static_cast<TypeParam>(A(0.5));
      }
    }
    A squares = 0;
    krait::tile::generic::norm_load(want.group(), want.scratch.data(), &squares);
    krait::tile::host::norm_load(got.group(), got.scratch.data(), &squares);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto g = static_cast<double>(got.scratch.data()[i]);
      const auto w = static_cast<double>(want.scratch.data()[i]);
      if (std::isnan(w)) {
        EXPECT_TRUE(std::isnan(g)) << special[i];
      } else {
        EXPECT_NEAR(g, w, 1e-6 * std::abs(w) + 1e-30) << special[i];
      }
    }
  });
}

/// Every number of a 16-bit scalar, times a few weights: loaded exactly and rounded as the scalar's own conversion
/// does, through subnormals, overflow and NaN.
template <class T>
void every_number_is_converted_exactly() {
  std::vector<T> numbers;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    numbers.push_back(T::from_bits(static_cast<std::uint16_t>(bits)));
  const auto count = static_cast<std::int64_t>(numbers.size());
  const std::vector<float> zeros(numbers.size(), 0);
  for (const float weight : {1.0F, -1.0F / 3, 7.0F, 1e-4F, 3e-7F}) {
    SCOPED_TRACE(weight);
    const std::vector<float> weights(numbers.size(), weight);
    for_each_set([&] {
      std::vector<T> got(numbers.size(), T(1.0F));
      const T* const x[] = {numbers.data()};
      T* const out[] = {got.data()};
      krait::tile::host::conv_rows<T, float>({count, count, 1, false, false, weights.data(), zeros.data()},
                                             {1, 0, x, nullptr}, out);
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        const auto want = static_cast<float>(T(weight * static_cast<float>(numbers[i])));
        const auto value = static_cast<float>(got[i]);
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(value)) << i;
        } else {
          ASSERT_EQ(value, want) << i;
        }
      }
    });
  }
}

TEST(RowFunctionsIn16Bits, EveryBfloat16IsConvertedExactly) { every_number_is_converted_exactly<krait::bfloat16>(); }
TEST(RowFunctionsIn16Bits, EveryFloat16IsConvertedExactly) { every_number_is_converted_exactly<krait::float16>(); }

}  // namespace
