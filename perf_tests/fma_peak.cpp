// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "fma_peak.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace krait::perf {
namespace {

// Twelve chains hide the latency of two units; the factors keep the values bounded.
constexpr int chains = 12;
constexpr long rounds = 20000;

/// Where a chain starts. Read anew for each, as the compiler would make one of two chains that it knows to be equal.
template <class V>
volatile V origin = V(0);
template <class V>
volatile V sink;

template <class V>
double portable() {
  constexpr int lanes = 16 / sizeof(V);
  V sum[chains][lanes];
  for (auto& chain : sum) {
    for (V& value : chain) value = origin<V>;
  }
  for (long r = 0; r < rounds; ++r) {
    for (auto& chain : sum) {
      for (V& value : chain) value = value * V(0.5) + V(1);
    }
  }
  for (auto& chain : sum) {
    for (const V value : chain) sink<V> = value;
  }
  return 2.0 * rounds * chains * lanes;
}

#if defined(__x86_64__) && defined(__GNUC__)
#define KRAIT_FMA_BURST(NAME, TARGET, VECTOR, V, LANES, SUFFIX, PREFIX)          \
  __attribute__((target(TARGET))) double NAME(V) {                               \
    VECTOR sum[chains];                                                          \
    for (auto& chain : sum) chain = PREFIX##_set1_##SUFFIX(origin<V>);           \
    const VECTOR half = PREFIX##_set1_##SUFFIX(V(0.5));                          \
    const VECTOR one = PREFIX##_set1_##SUFFIX(V(1));                             \
    for (long r = 0; r < rounds; ++r) {                                          \
      for (auto& chain : sum) chain = PREFIX##_fmadd_##SUFFIX(chain, half, one); \
    }                                                                            \
    for (auto& chain : sum) sink<V> = chain[0];                                  \
    return 2.0 * rounds * chains * (LANES);                                      \
  }
KRAIT_FMA_BURST(avx512, "avx512f", __m512, float, 16, ps, _mm512)
KRAIT_FMA_BURST(avx512, "avx512f", __m512d, double, 8, pd, _mm512)
KRAIT_FMA_BURST(avx2, "avx2,fma", __m256, float, 8, ps, _mm256)
KRAIT_FMA_BURST(avx2, "avx2,fma", __m256d, double, 4, pd, _mm256)
#undef KRAIT_FMA_BURST

template <class V>
double best() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return avx512(V());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2(V());
  return portable<V>();
}
#else
template <class V>
double best() {
  return portable<V>();
}
#endif

}  // namespace

template <class V>
double fma_burst() {
  return best<V>();
}
template double fma_burst<float>();
template double fma_burst<double>();

}  // namespace krait::perf
