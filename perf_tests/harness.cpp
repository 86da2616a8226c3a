// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "harness.hpp"

#include <algorithm>
#include <chrono>

#include "fma_peak.hpp"

namespace krait::perf {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Copies between two large arrays, kept until Kokkos ends.
class Copies {
 public:
  Copies() {
    Kokkos::push_finalize_hook([this] { from_ = to_ = {}; });
  }

  /// Seconds of `count` copies, one after the other.
  double time(int count) const {
    const Exec exec;
    exec.fence("krait::perf: before the copies");
    const auto start = Clock::now();
    for (int i = 0; i < count; ++i) {
      Kokkos::deep_copy(exec, to_, from_);
      exec.fence("krait::perf: copy is done");
    }
    return seconds_since(start);
  }
  /// Of one copy, load and store counted.
  [[nodiscard]] double bytes() const { return 2.0 * 4.0 * static_cast<double>(from_.size()); }

 private:
  Kokkos::View<float*> from_ = data<Kokkos::View<float*>>(0, 1, std::int64_t{1} << 26);
  Kokkos::View<float*> to_ = data<Kokkos::View<float*>>(0, 1, std::int64_t{1} << 26);
};

const Copies& copies() {
  static const Copies instance;
  return instance;
}

/// The copy bandwidth around a timed loop. Where several virtual machines share a memory bus it drifts by a factor of
/// two within minutes, so a figure of another minute would say nothing about the loop.
class CopyBandwidth {
 public:
  CopyBandwidth() : seconds_(copies().time(count)) {}
  double after() { return 2 * count * copies().bytes() / (seconds_ + copies().time(count)); }

 private:
  static constexpr int count = 4;
  double seconds_;
};

double seconds_of(const std::function<void(const Exec&)>& call) {
  const Exec exec;
  exec.fence("krait::perf: start");
  const auto start = Clock::now();
  call(exec);
  exec.fence("krait::perf: end");
  return seconds_since(start);
}

void count(benchmark::State& state, const Cost& cost, double total, double bandwidth) {
  const double calls_per_second = static_cast<double>(state.iterations()) / total;
  state.counters["tokens_per_second"] = cost.tokens * calls_per_second;
  state.counters["copy_fraction"] = cost.bytes * calls_per_second / bandwidth;
  state.counters["flops_fraction"] = cost.operations * calls_per_second / fma_peak(cost.double_precision);
}

}  // namespace

double copy_bandwidth() {
  double best = copies().time(1);
  for (int attempt = 1; attempt < 8; ++attempt) best = std::min(best, copies().time(1));
  return copies().bytes() / best;
}

double fma_peak(bool double_precision) {
  static const double peak = measure_fma_peak(Exec().concurrency());
  return double_precision ? peak / 2 : peak;
}

void run(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call) {
  call(Exec());
  CopyBandwidth bandwidth;
  double total = 0;
  for (auto _ : state) {
    const double seconds = seconds_of(call);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  count(state, cost, total, bandwidth.after());
}

void run_backward(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call,
                  const std::function<void(const Exec&)>& forward) {
  call(Exec());
  forward(Exec());
  CopyBandwidth bandwidth;
  double total = 0;
  double total_forward = 0;
  for (auto _ : state) {
    total_forward += seconds_of(forward);
    const double seconds = seconds_of(call);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  count(state, cost, total, bandwidth.after());
  state.counters["backward_over_forward"] = total / total_forward;
}

void add(const std::string& name, const LayerShape& shape, const char* scalar, std::int64_t length,
         const std::function<void(benchmark::State&)>& body) {
  const std::string full = name + '/' + shape.name + '/' + scalar + "/L:" + std::to_string(length) +
                           "/T:" + std::to_string(Exec().concurrency());
  benchmark::RegisterBenchmark(full, body)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace krait::perf
