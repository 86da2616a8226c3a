// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>

namespace krait::tile::cuda {

/// 2^v, to 2 units in the last place; below the least normal number, 0.
KOKKOS_INLINE_FUNCTION float exp2(float v) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
#else
  return v < -126.0F ? 0.0F : Kokkos::exp2(v);
#endif
}

/// exp(v) for a log-decay v <= 0, in two instructions: a rounding error above 0 counts as 0, what would be denormal
/// is 0, NaN stays NaN. The product rounds, which costs |v| units of the last place of the result; as |v| exp(v) never
/// exceeds 1/e, the error is below 1e-7 for any v.
KOKKOS_INLINE_FUNCTION float decay(float v) { return exp2((v > 0.0F ? 0.0F : v) * 1.44269504F); }

/// 1 / v for v >= 1, to 1 unit in the last place; beyond the largest number, 0.
KOKKOS_INLINE_FUNCTION float reciprocal(float v) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
#else
  return 1.0F / v;
#endif
}

/// 1 / (1 + exp(-v)) in five instructions: where the exponential overflows, the result is 0.
KOKKOS_INLINE_FUNCTION float sigmoid(float v) { return reciprocal(1.0F + exp2(v * -1.44269504F)); }

/// v sigmoid(v)
KOKKOS_INLINE_FUNCTION float silu(float v) { return v * sigmoid(v); }

/// d silu / dv, as generic::silu_derivative(): without cancellation.
KOKKOS_INLINE_FUNCTION float silu_derivative(float v) {
  const float e = exp2(Kokkos::abs(v) * -1.44269504F);
  const float larger = reciprocal(1.0F + e);
  const float smaller = e * larger;
  return v >= 0.0F ? larger * (1.0F + v * smaller) : smaller * (1.0F + v * larger);
}

}  // namespace krait::tile::cuda
