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

}  // namespace krait::tile::cuda
