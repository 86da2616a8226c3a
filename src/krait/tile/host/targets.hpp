// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The instruction sets for which the vector code is compiled, from those that Highway offers: on x86 the baseline, one
/// with 256 and one with 512 bits, as every further one costs compile time and brings these loops nothing. Include it
/// before any header of Highway.

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
