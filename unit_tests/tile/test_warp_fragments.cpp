// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Who holds what in the products of a warp, and where it lies in shared memory.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/mma.hpp>
#include <krait/tile/cuda/vector_math.hpp>
#include <krait/tile/cuda/warp.hpp>
#include <limits>
#include <map>
#include <set>
#include <vector>

namespace {

using namespace krait::tile::cuda;
using krait::bfloat16;
using krait::float16;
using Exec = Kokkos::DefaultHostExecutionSpace;

template <class E>
class WarpFragments : public testing::Test {};
using OperandTypes = testing::Types<bfloat16, float16, float>;
TYPED_TEST_SUITE(WarpFragments, OperandTypes);

TYPED_TEST(WarpFragments, CoverEveryElementOnce) {
  std::set<std::pair<int, int>> a, b, d;
  for (int lane = 0; lane < warp_size; ++lane) {
    for (int part = 0; part < register_elements<TypeParam>; ++part) {
      for (int i = 0; i < 4; ++i) {
        const Place at = a_place<TypeParam>(lane, i, part);
        ASSERT_TRUE(at.row >= 0 && at.row < mma_rows && at.column >= 0 && at.column < mma_inner<TypeParam>);
        EXPECT_TRUE(a.insert({at.row, at.column}).second) << "lane " << lane << ", register " << i;
      }
      for (int i = 0; i < 2; ++i) {
        const Place at = b_place<TypeParam>(lane, i, part);
        ASSERT_TRUE(at.row >= 0 && at.row < mma_inner<TypeParam> && at.column >= 0 && at.column < mma_columns);
        EXPECT_TRUE(b.insert({at.row, at.column}).second) << "lane " << lane << ", register " << i;
      }
    }
    for (int i = 0; i < 4; ++i) {
      const Place at = d_place(lane, i);
      ASSERT_TRUE(at.row >= 0 && at.row < mma_rows && at.column >= 0 && at.column < mma_columns);
      EXPECT_TRUE(d.insert({at.row, at.column}).second) << "lane " << lane << ", register " << i;
    }
  }
  EXPECT_EQ(a.size(), static_cast<std::size_t>(mma_rows * mma_inner<TypeParam>));
  EXPECT_EQ(b.size(), static_cast<std::size_t>(mma_inner<TypeParam> * mma_columns));
  EXPECT_EQ(d.size(), static_cast<std::size_t>(mma_rows * mma_columns));
}

/// Some lanes from the tables of the PTX ISA, written out.
TEST(WarpFragmentsOfTheManual, Lanes) {
  const auto is = [](const Place& place, int row, int column) { return place.row == row && place.column == column; };
  // m16n8k16: groupID = lane / 4, threadID_in_group = lane % 4.
  EXPECT_TRUE(is(a_place<bfloat16>(5, 0, 1), 1, 3));
  EXPECT_TRUE(is(a_place<bfloat16>(5, 1, 0), 9, 2));
  EXPECT_TRUE(is(a_place<bfloat16>(5, 2, 0), 1, 10));
  EXPECT_TRUE(is(a_place<bfloat16>(31, 3, 1), 15, 15));
  EXPECT_TRUE(is(b_place<bfloat16>(6, 0, 1), 5, 1));
  EXPECT_TRUE(is(b_place<bfloat16>(6, 1, 0), 12, 1));
  // m16n8k8 of TF32.
  EXPECT_TRUE(is(a_place<float>(5, 1, 0), 9, 1));
  EXPECT_TRUE(is(a_place<float>(5, 2, 0), 1, 5));
  EXPECT_TRUE(is(b_place<float>(6, 1, 0), 6, 1));
  EXPECT_TRUE(is(d_place(6, 1), 1, 5));
  EXPECT_TRUE(is(d_place(6, 2), 9, 4));
}

/// Times a warp's accesses must be repeated because two of them want other words of the same bank. Lanes are served
/// together as far as their bytes fit the 128 of a pass.
int conflicts(const std::vector<int>& byte_addresses, int bytes) {
  const int together = 128 / bytes;
  int repeated = 0;
  for (std::size_t first = 0; first < byte_addresses.size(); first += static_cast<std::size_t>(together)) {
    std::map<int, std::set<int>> words_of_bank;
    for (std::size_t i = first; i < first + static_cast<std::size_t>(together) && i < byte_addresses.size(); ++i) {
      for (int word = byte_addresses[i] / 4; word < (byte_addresses[i] + bytes + 3) / 4; ++word) {
        words_of_bank[word % 32].insert(word);
      }
    }
    std::size_t most = 1;
    for (const auto& [bank, words] : words_of_bank) most = std::max(most, words.size());
    repeated += static_cast<int>(most) - 1;
  }
  return repeated;
}

TEST(WarpTiles, BanksAreCountedRight) {
  std::vector<int> same(32, 64), stride(32), rows(32);
  for (int lane = 0; lane < 32; ++lane) {
    stride[static_cast<std::size_t>(lane)] = 128 * lane;
    rows[static_cast<std::size_t>(lane)] = 4 * lane;
  }
  EXPECT_EQ(conflicts(same, 4), 0);
  EXPECT_EQ(conflicts(rows, 4), 0);
  EXPECT_EQ(conflicts(stride, 4), 31);
}

/// All widths of tiles that occur, and some that do not.
TEST(WarpTiles, NoTwoLanesMeetInABank) {
  for (int columns = 1; columns <= 256; ++columns) {
    SCOPED_TRACE(columns);
    const int halves = operand_pitch<bfloat16>(columns);
    const int floats = operand_pitch<float>(columns);
    const int pitch = tile_pitch(columns);
    EXPECT_EQ(halves % 8, 0) << "rows are 16-byte aligned";
    EXPECT_EQ(floats % 4, 0);
    EXPECT_EQ(pitch % 8, 0);
    for (const Stored stored : {Stored::by_rows, Stored::by_columns}) {
      std::vector<int> rows;
      for (int lane = 0; lane < warp_size; ++lane) {
        const Place at = matrix_row(stored, lane);
        rows.push_back(2 * (at.row * halves + at.column));
      }
      EXPECT_EQ(conflicts(rows, 16), 0) << "ldmatrix";
    }
    std::vector<int> a, b, state, sums, pairs;
    for (int lane = 0; lane < warp_size; ++lane) {
      const Place in_a = a_place<float>(lane, 0, 0);
      const Place in_b = b_place<float>(lane, 0, 0);
      const Place in_state = b_place<bfloat16>(lane, 0, 0);
      const Place in_d = d_place(lane, 0);
      a.push_back(4 * (in_a.row * floats + in_a.column));
      b.push_back(4 * (in_b.row * pitch + in_b.column));
      state.push_back(4 * (in_state.column * pitch + in_state.row));
      sums.push_back(4 * (in_d.row * pitch + in_d.column));
      pairs.push_back(2 * (in_d.row * halves + in_d.column));
    }
    EXPECT_EQ(conflicts(a, 4), 0) << "TF32, rows of c";
    EXPECT_EQ(conflicts(b, 4), 0) << "TF32, rows of x";
    EXPECT_EQ(conflicts(state, 8), 0) << "columns of the state as a right factor";
    EXPECT_EQ(conflicts(sums, 8), 0) << "sums to and from the state, and to the outputs";
    EXPECT_EQ(conflicts(pairs, 4), 0) << "sums to the weights";
  }
}

template <class E>
E rounded(double value) {
  if constexpr (std::is_same_v<E, float>) {
    return std::bit_cast<float>(round_to_tf32(static_cast<float>(value)) & 0xffffe000U);
  } else {
    return E(static_cast<float>(value));
  }
}

TYPED_TEST(WarpFragments, ProductOfAWarpIsTheProduct) {
  constexpr int inner = mma_inner<TypeParam>;
  double left[mma_rows][inner], right[inner][mma_columns];
  for (int i = 0; i < mma_rows; ++i) {
    for (int k = 0; k < inner; ++k)
      left[i][k] = rounded<TypeParam>(krait::normal(1, 0, static_cast<std::uint64_t>(i * inner + k)));
  }
  for (int k = 0; k < inner; ++k) {
    for (int j = 0; j < mma_columns; ++j)
      right[k][j] = rounded<TypeParam>(krait::normal(2, 0, static_cast<std::uint64_t>(k * mma_columns + j)));
  }
  std::uint32_t a[warp_size][4], b[warp_size][2];
  float d[warp_size][4];
  for (int lane = 0; lane < warp_size; ++lane) {
    const auto word = [&](const auto& element) {
      if constexpr (sizeof(TypeParam) == 2) {
        return pack<TypeParam>(static_cast<float>(element(0)), static_cast<float>(element(1)));
      } else {
        return std::bit_cast<std::uint32_t>(static_cast<float>(element(0)));
      }
    };
    for (int i = 0; i < 4; ++i) {
      a[lane][i] = word([&](int part) {
        const Place at = a_place<TypeParam>(lane, i, part);
        return left[at.row][at.column];
      });
      d[lane][i] = static_cast<float>(lane + i) / 64;
    }
    for (int i = 0; i < 2; ++i) {
      b[lane][i] = word([&](int part) {
        const Place at = b_place<TypeParam>(lane, i, part);
        return right[at.row][at.column];
      });
    }
  }
  impl::emulate_mma<TypeParam>(d, a, b);
  for (int lane = 0; lane < warp_size; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = d_place(lane, i);
      double want = (lane + i) / 64.0;
      for (int k = 0; k < inner; ++k) want += left[at.row][k] * right[k][at.column];
      EXPECT_NEAR(d[lane][i], want, 1e-5);
    }
  }
}

TEST(WarpNumbers, TwoHalvesOfARegister) {
  for (const float value : {0.0F, -1.5F, 3.14159265F, 65504.0F, 1e-6F}) {
    EXPECT_EQ(unpack<bfloat16>(pack<bfloat16>(value, 7.0F), 0), static_cast<float>(bfloat16(value)));
    EXPECT_EQ(unpack<bfloat16>(pack<bfloat16>(7.0F, value), 1), static_cast<float>(bfloat16(value)));
    EXPECT_EQ(unpack<float16>(pack<float16>(value, 7.0F), 0), static_cast<float>(float16(value)));
    EXPECT_EQ(unpack<float16>(pack<float16>(7.0F, value), 1), static_cast<float>(float16(value)));
  }
}

TEST(WarpNumbers, Tf32RoundsToTheNearest) {
  const auto value = [](float v) { return std::bit_cast<float>(round_to_tf32(v)); };
  EXPECT_EQ(value(1.0F), 1.0F);
  EXPECT_EQ(value(1.0F + 0x1p-10F), 1.0F + 0x1p-10F);
  EXPECT_EQ(value(1.0F + 0x1p-11F), 1.0F + 0x1p-10F);
  EXPECT_EQ(value(1.0F + 0x1.8p-12F), 1.0F);
  EXPECT_EQ(value(-1.0F - 0x1p-11F), -1.0F - 0x1p-10F);
  EXPECT_TRUE(std::isinf(value(std::numeric_limits<float>::infinity())));
  EXPECT_TRUE(std::isnan(value(std::numeric_limits<float>::quiet_NaN())));
}

TEST(WarpNumbers, DecayIsTheExponential) {
  for (double v = 0; v > -100; v = v * 1.01 - 1e-4) {
    const auto given = static_cast<float>(v);
    ASSERT_NEAR(decay(given), std::exp(static_cast<double>(given)), 1e-7) << v;
  }
  EXPECT_EQ(decay(0.0F), 1.0F);
  EXPECT_EQ(decay(1e-3F), 1.0F);
  EXPECT_EQ(decay(-std::numeric_limits<float>::infinity()), 0.0F);
  EXPECT_EQ(decay(-200.0F), 0.0F);
  EXPECT_TRUE(std::isnan(decay(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
