// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Storage scalars. Krait keeps activations as float, double, bfloat16 or float16 and computes in float (double for
/// double). The two 2-byte types are Krait's own because those of Kokkos are `float` in host-only builds.

#include <Kokkos_Core.hpp>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace krait {

namespace impl {

/// float -> bfloat16 bits, round to nearest even; a NaN stays a (quiet) NaN with its sign.
KOKKOS_INLINE_FUNCTION constexpr std::uint16_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x0040U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

KOKKOS_INLINE_FUNCTION constexpr float bfloat16_value(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// float -> IEEE binary16 bits, round to nearest even, overflow to infinity, subnormals kept, NaN stays NaN.
KOKKOS_INLINE_FUNCTION constexpr std::uint16_t float16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  if (magnitude >= 0x47800000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // 2^16 and above, infinity
  if (magnitude < 0x33000000U) return sign;                                         // below half the least subnormal
  std::uint32_t mantissa = 0;
  std::uint32_t dropped = 0;  // number of low mantissa bits that do not fit
  if (magnitude < 0x38800000U) {
    dropped = 126U - (magnitude >> 23);
    mantissa = (magnitude & 0x7fffffU) | 0x800000U;
  } else {
    dropped = 13U;
    mantissa = magnitude - 0x38000000U;  // exponent re-biased from 127 to 15; a carry moves into it by itself
  }
  const std::uint32_t half = 1U << (dropped - 1U);
  const std::uint32_t rest = mantissa & ((1U << dropped) - 1U);
  std::uint32_t rounded = mantissa >> dropped;
  if (rest > half || (rest == half && (rounded & 1U) != 0U)) ++rounded;
  return static_cast<std::uint16_t>(sign | rounded);
}

KOKKOS_INLINE_FUNCTION constexpr float float16_value(std::uint16_t bits) {
  const std::uint32_t sign = (static_cast<std::uint32_t>(bits) & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fU;
  const std::uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  if (exponent != 0U) return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
  const float value = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0U ? -value : value;
}

}  // namespace impl

/// 16-bit brain floating point, storage only: converts from and to float, bit-compatible with `__nv_bfloat16`.
class bfloat16 {
 public:
  KOKKOS_DEFAULTED_FUNCTION bfloat16() = default;
  KOKKOS_INLINE_FUNCTION constexpr explicit bfloat16(float value) : bits_(impl::bfloat16_bits(value)) {}
  KOKKOS_INLINE_FUNCTION constexpr operator float() const { return impl::bfloat16_value(bits_); }

  KOKKOS_INLINE_FUNCTION static constexpr bfloat16 from_bits(std::uint16_t bits) {
    bfloat16 result{};
    result.bits_ = bits;
    return result;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION constexpr std::uint16_t bits() const { return bits_; }

 private:
  std::uint16_t bits_;
};

/// IEEE binary16, storage only: converts from and to float, bit-compatible with `__half`.
class float16 {
 public:
  KOKKOS_DEFAULTED_FUNCTION float16() = default;
  KOKKOS_INLINE_FUNCTION constexpr explicit float16(float value) : bits_(impl::float16_bits(value)) {}
  KOKKOS_INLINE_FUNCTION constexpr operator float() const { return impl::float16_value(bits_); }

  KOKKOS_INLINE_FUNCTION static constexpr float16 from_bits(std::uint16_t bits) {
    float16 result{};
    result.bits_ = bits;
    return result;
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION constexpr std::uint16_t bits() const { return bits_; }

 private:
  std::uint16_t bits_;
};

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

/// The scalars in which Krait stores activations.
template <class T>
concept Scalar =
    std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// The type in which values stored as T are computed, and in which parameters and states are kept.
template <Scalar T>
using accumulator_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Short name for labels: "float", "double", "bf16", "fp16".
template <Scalar T>
constexpr const char* scalar_name() {
  if constexpr (std::is_same_v<T, float>) return "float";
  if constexpr (std::is_same_v<T, double>) return "double";
  if constexpr (std::is_same_v<T, bfloat16>) return "bf16";
  return "fp16";
}

}  // namespace krait
