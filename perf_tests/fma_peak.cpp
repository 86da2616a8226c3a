// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "fma_peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace krait::perf {
namespace {

using Clock = std::chrono::steady_clock;

// Twelve chains hide the latency of two units; the factors keep the values bounded.
constexpr int chains = 12;
constexpr long rounds = 20000;

volatile float sink;
/// Where a chain starts. Read anew for each, as the compiler would make one of two chains that it knows to be equal.
volatile float origin;

/// Each returns the operations of one call.
double portable() {
  constexpr int lanes = 4;
  float sum[chains][lanes];
  for (auto& chain : sum) {
    for (float& value : chain) value = origin;
  }
  for (long r = 0; r < rounds; ++r) {
    for (auto& chain : sum) {
      for (float& value : chain) value = value * 0.5F + 1.0F;
    }
  }
  for (auto& chain : sum) {
    for (const float value : chain) sink = value;
  }
  return 2.0 * rounds * chains * lanes;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx512f"))) double avx512() {
  __m512 sum[chains];
  for (auto& chain : sum) chain = _mm512_set1_ps(origin);
  const __m512 half = _mm512_set1_ps(0.5F);
  const __m512 one = _mm512_set1_ps(1.0F);
  for (long r = 0; r < rounds; ++r) {
    for (int i = 0; i < chains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], half, one);
  }
  for (int i = 0; i < chains; ++i) sink = _mm512_cvtss_f32(sum[i]);
  return 2.0 * rounds * chains * 16;
}

__attribute__((target("avx2,fma"))) double avx2() {
  __m256 sum[chains];
  for (auto& chain : sum) chain = _mm256_set1_ps(origin);
  const __m256 half = _mm256_set1_ps(0.5F);
  const __m256 one = _mm256_set1_ps(1.0F);
  for (long r = 0; r < rounds; ++r) {
    for (int i = 0; i < chains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], half, one);
  }
  for (int i = 0; i < chains; ++i) sink = _mm256_cvtss_f32(sum[i]);
  return 2.0 * rounds * chains * 8;
}

auto best_loop() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
  return portable;
}
#else
auto best_loop() { return portable; }
#endif

}  // namespace

double measure_fma_peak(int threads) {
  const auto loop = best_loop();
  double best = 0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::atomic<int> ready{0};
    std::vector<double> rates(static_cast<std::size_t>(threads));
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        loop();
        ++ready;
        while (ready < threads) std::this_thread::yield();
        const auto start = Clock::now();
        double operations = 0;
        double seconds = 0;
        do {
          operations += loop();
          seconds = std::chrono::duration<double>(Clock::now() - start).count();
        } while (seconds < 0.08);
        rates[static_cast<std::size_t>(t)] = operations / seconds;
      });
    }
    for (std::thread& thread : team) thread.join();
    double sum = 0;
    for (const double rate : rates) sum += rate;
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace krait::perf
