// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <krait/core/scalars.hpp>
#include <limits>
#include <vector>

namespace {

using krait::bfloat16;
using krait::float16;

// Value of a binary format with the given fields, spelled out from its definition.
double value_of(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1U << exponent_bits) - 1U));
  const double fraction = std::ldexp(static_cast<double>(bits & ((1U << mantissa_bits) - 1U)), -mantissa_bits);
  const double sign = ((bits >> (exponent_bits + mantissa_bits)) & 1U) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return fraction == 0.0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1.0 + fraction, exponent - bias);
}

template <class Half>
void check_all_patterns(int exponent_bits, int mantissa_bits) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half half = Half::from_bits(static_cast<std::uint16_t>(bits));
    const double expected = value_of(bits, exponent_bits, mantissa_bits);
    const float value = half;
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(Half(value)))) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << bits;
      ASSERT_EQ(Half(value).bits(), bits);
    }
  }
}

// Between two neighbours of the format: the midpoint goes to the even one, anything nearer to the nearer one.
template <class Half>
void check_rounding() {
  for (std::uint32_t bits = 0; bits < 0x8000U; ++bits) {
    const float low = Half::from_bits(static_cast<std::uint16_t>(bits));
    const float high = Half::from_bits(static_cast<std::uint16_t>(bits + 1));
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const double middle = (static_cast<double>(low) + static_cast<double>(high)) / 2;
    const auto midpoint = static_cast<float>(middle);
    ASSERT_EQ(static_cast<double>(midpoint), middle);
    const std::uint32_t even = (bits & 1U) == 0 ? bits : bits + 1;
    ASSERT_EQ(Half(midpoint).bits(), even) << bits;
    ASSERT_EQ(Half(-midpoint).bits(), even | 0x8000U) << bits;
    ASSERT_EQ(Half(std::nextafter(midpoint, 0.0F)).bits(), bits) << bits;
    ASSERT_EQ(Half(std::nextafter(midpoint, std::numeric_limits<float>::infinity())).bits(), bits + 1) << bits;
  }
}

TEST(Bfloat16, EveryPatternHasItsValueAndComesBack) { check_all_patterns<bfloat16>(8, 7); }
TEST(Float16, EveryPatternHasItsValueAndComesBack) { check_all_patterns<float16>(5, 10); }
TEST(Bfloat16, RoundsToNearestEven) { check_rounding<bfloat16>(); }
TEST(Float16, RoundsToNearestEven) { check_rounding<float16>(); }

TEST(Halves, OverflowToInfinityAndKeepSigns) {
  EXPECT_EQ(float16(65519.0F).bits(), 0x7bffU);
  EXPECT_EQ(float16(65520.0F).bits(), 0x7c00U);
  EXPECT_EQ(float16(-1e30F).bits(), 0xfc00U);
  EXPECT_EQ(bfloat16(std::numeric_limits<float>::max()).bits(), 0x7f80U);
  EXPECT_EQ(float16(-0.0F).bits(), 0x8000U);
  EXPECT_EQ(bfloat16(-0.0F).bits(), 0x8000U);
  EXPECT_EQ(float16(0x1p-26F).bits(), 0U);
  EXPECT_EQ(float16(0x1.8p-25F).bits(), 1U);
}

TEST(Halves, SignallingNanStaysNan) {
  const auto signalling = std::bit_cast<float>(0x7f800001U);
  EXPECT_EQ(bfloat16(signalling).bits() & 0x7fc0U, 0x7fc0U);
  EXPECT_EQ(float16(signalling).bits() & 0x7e00U, 0x7e00U);
}

TEST(Scalars, ComputeTypes) {
  static_assert(std::is_same_v<krait::accumulator_t<bfloat16>, float>);
  static_assert(std::is_same_v<krait::accumulator_t<float16>, float>);
  static_assert(std::is_same_v<krait::accumulator_t<float>, float>);
  static_assert(std::is_same_v<krait::accumulator_t<double>, double>);
  EXPECT_STREQ(krait::scalar_name<bfloat16>(), "bf16");
}

}  // namespace
