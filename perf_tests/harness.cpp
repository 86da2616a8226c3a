// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "harness.hpp"

#include <algorithm>
#include <chrono>

#include "fma_peak.hpp"

namespace krait::perf {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double measure_copy_bandwidth() {
  const Exec exec;
  const auto from = data<Kokkos::View<float*>>(0, 1, std::int64_t{1} << 26);
  const auto to = data<Kokkos::View<float*>>(0, 1, std::int64_t{1} << 26);
  double best = 0;
  for (int attempt = 0; attempt < 8; ++attempt) {
    const auto start = Clock::now();
    Kokkos::deep_copy(exec, to, from);
    exec.fence("krait::perf: copy is done");
    best = std::max(best, 2.0 * 4.0 * static_cast<double>(from.size()) / seconds_since(start));
  }
  return best;
}

double seconds_of(const std::function<void(const Exec&)>& call) {
  const Exec exec;
  exec.fence("krait::perf: start");
  const auto start = Clock::now();
  call(exec);
  exec.fence("krait::perf: end");
  return seconds_since(start);
}

void count(benchmark::State& state, const Cost& cost, double total) {
  const double calls_per_second = static_cast<double>(state.iterations()) / total;
  state.counters["tokens_per_second"] = cost.tokens * calls_per_second;
  state.counters["copy_fraction"] = cost.bytes * calls_per_second / copy_bandwidth();
  state.counters["flops_fraction"] = cost.operations * calls_per_second / fma_peak(cost.double_precision);
}

}  // namespace

double copy_bandwidth() {
  static const double bandwidth = measure_copy_bandwidth();
  return bandwidth;
}

double fma_peak(bool double_precision) {
  static const double peak = measure_fma_peak(Exec().concurrency());
  return double_precision ? peak / 2 : peak;
}

void run(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call) {
  call(Exec());
  double total = 0;
  for (auto _ : state) {
    const double seconds = seconds_of(call);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  count(state, cost, total);
}

void run_backward(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call,
                  const std::function<void(const Exec&)>& forward) {
  call(Exec());
  forward(Exec());
  double total = 0;
  double total_forward = 0;
  for (auto _ : state) {
    total_forward += seconds_of(forward);
    const double seconds = seconds_of(call);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  count(state, cost, total);
  state.counters["backward_over_forward"] = total / total_forward;
}

void add(const std::string& name, const LayerShape& shape, const char* scalar, std::int64_t length,
         const std::function<void(benchmark::State&)>& body) {
  const std::string full = name + '/' + shape.name + '/' + scalar + "/L:" + std::to_string(length) +
                           "/T:" + std::to_string(Exec().concurrency());
  benchmark::RegisterBenchmark(full, body)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace krait::perf
