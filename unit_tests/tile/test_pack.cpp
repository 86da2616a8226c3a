// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <array>
#include <krait/core/tensor.hpp>
#include <krait/tile/pack.hpp>

namespace {

using krait::accumulator_t;
using krait::tile::has_whole_packs;
using krait::tile::Pack;
using krait::tile::pack_size;
using Exec = Kokkos::DefaultHostExecutionSpace;

template <class T>
class TilePack : public testing::Test {};
using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(TilePack, Scalars);

/// Numbers that T has to round, of either sign.
template <class T>
accumulator_t<T> number(int i) {
  return static_cast<accumulator_t<T>>((i % 2 == 0 ? 1 : -1) * (i + 1) / 3.0);
}

/// N numbers go to elements [N, 2 N) of an array and come back, rounded as single ones are.
template <class T, int N>
void expect_round_trip() {
  alignas(64) std::array<T, 3 * N> memory;
  accumulator_t<T> numbers[N];
  accumulator_t<T> back[N];
  for (int i = 0; i < 3 * N; ++i) memory[static_cast<std::size_t>(i)] = static_cast<T>(accumulator_t<T>(1000 + i));
  for (int i = 0; i < N; ++i) numbers[i] = number<T>(i);
  krait::tile::store_packs<N>(numbers, memory.data() + N);
  krait::tile::load_packs<N>(memory.data() + N, back);
  for (int i = 0; i < 3 * N; ++i) {
    const bool stored = i >= N && i < 2 * N;
    const auto wanted = static_cast<T>(stored ? numbers[i - N] : accumulator_t<T>(1000 + i));
    EXPECT_EQ(static_cast<accumulator_t<T>>(memory[static_cast<std::size_t>(i)]), static_cast<accumulator_t<T>>(wanted))
        << N << ", " << i;
    if (stored) {
      EXPECT_EQ(back[i - N], static_cast<accumulator_t<T>>(wanted)) << N << ", " << i;
    }
  }
}

TYPED_TEST(TilePack, NumbersKeepTheirPlaces) {
  expect_round_trip<TypeParam, 1>();
  expect_round_trip<TypeParam, 2>();
  expect_round_trip<TypeParam, pack_size<TypeParam>>();
  expect_round_trip<TypeParam, 4 * pack_size<TypeParam>>();
}

TYPED_TEST(TilePack, SixteenBytesAtMost) {
  EXPECT_EQ(sizeof(Pack<TypeParam, pack_size<TypeParam>>), 16U);
  EXPECT_EQ(alignof(Pack<TypeParam, pack_size<TypeParam>>), 16U);
  EXPECT_EQ(sizeof(Pack<TypeParam, 1>), sizeof(TypeParam));
  EXPECT_EQ(alignof(Pack<TypeParam, 1>), sizeof(TypeParam));
}

TYPED_TEST(TilePack, TensorsOfWholePacks) {
  constexpr std::int64_t each = pack_size<TypeParam>;
  using View = krait::Tensor<TypeParam***, Exec>;
  alignas(16) std::array<TypeParam, 256> memory{};
  const auto view = [&](std::int64_t first, std::int64_t rows, std::int64_t width,
                        const std::array<std::int64_t, 3>& strides) {
    return krait::make_tensor<TypeParam***, Exec, 3>(memory.data() + first, {rows, 2, width}, strides);
  };
  const std::int64_t row = 4 * each;
  EXPECT_TRUE(has_whole_packs(View()));
  EXPECT_TRUE(has_whole_packs(view(0, 2, 2 * each, {2 * row, row, 1})));
  EXPECT_TRUE(has_whole_packs(view(each, 2, 2 * each, {2 * row, row, 1})));
  EXPECT_TRUE(has_whole_packs(view(0, 1, each, {1, row, 1}))) << "there is one row, whose stride is never used";
  EXPECT_FALSE(has_whole_packs(view(1, 2, 2 * each, {2 * row, row, 1})));
  EXPECT_FALSE(has_whole_packs(view(0, 2, 2 * each - 1, {2 * row, row, 1})));
  EXPECT_FALSE(has_whole_packs(view(0, 2, 2 * each, {2 * row, row + 1, 1})));
  EXPECT_FALSE(has_whole_packs(view(0, 2, 2 * each, {2 * row + 1, row, 1})));
  EXPECT_FALSE(has_whole_packs(view(0, 2, each, {2 * row, row, 2})));
}

}  // namespace
