// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "harness.hpp"

#include <algorithm>
#include <chrono>

#include "fma_peak.hpp"

namespace krait::perf {
namespace {

using Clock = std::chrono::steady_clock;

Peers& peers() {
  static Peers instance;
  return instance;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double seconds_of(const Call& call) {
  const Exec exec;
  peers().wait();
  exec.fence("krait::perf: start");
  const auto start = Clock::now();
  call(exec);
  exec.fence("krait::perf: end");
  return peers().slowest(seconds_since(start));
}

/// Copies between two large arrays, kept until Kokkos ends.
class Copies {
 public:
  Copies() {
    Kokkos::push_finalize_hook([this] { from_ = to_ = {}; });
  }

  /// Seconds of `count` copies, one after the other.
  [[nodiscard]] double time(int count) const {
    double seconds = 0;
    for (int i = 0; i < count; ++i) seconds += seconds_of([this](const Exec& exec) { copy(exec, to_, from_); });
    return seconds;
  }
  /// Of one copy of each peer, load and store counted.
  [[nodiscard]] double bytes() const { return 2.0 * 4.0 * static_cast<double>(from_.size()) * peers().count; }

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
  [[nodiscard]] double after() const { return 2 * count * copies().bytes() / (seconds_ + copies().time(count)); }

 private:
  static constexpr int count = 4;
  double seconds_;
};

template <class V>
struct HostBursts {
  int bursts;
  Kokkos::View<double*, Kokkos::HostSpace> operations;
  void operator()(std::int64_t thread) const {
    for (int i = 0; i < bursts; ++i) operations(thread) += fma_burst<V>();
  }
};

/// Eight chains per thread; enough threads hide the latency.
template <class V>
struct DeviceChains {
  static constexpr int chains = 8;
  static constexpr int rounds = 4096;
  Kokkos::View<V*> out;
  V origin;
  KOKKOS_FUNCTION void operator()(std::int64_t thread) const {
    V sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = origin + V(i);
    for (int r = 0; r < rounds; ++r) {
      for (V& value : sum) value = value * V(0.5) + V(1);
    }
    V all = 0;
    for (const V value : sum) all += value;
    if (all < V(0)) out(thread) = all;  // never, but only the sums tell
  }
};

/// Operations per second of one parallel region of all threads that the operators get, bound to cores as they are.
template <class V>
double fma_rate() {
  const int concurrency = Exec().concurrency();
  double operations = 0;
  double seconds = 0;
  if constexpr (impl::is_host_execution<Exec>) {
    const HostBursts<V> bursts{200, {"krait::perf::operations", static_cast<std::size_t>(concurrency)}};
    seconds = seconds_of([&](const Exec& exec) {
      Kokkos::parallel_for("krait::perf::fma_peak", Threads(exec, 0, concurrency), bursts);
    });
    for (int t = 0; t < concurrency; ++t) operations += bursts.operations(t);
  } else {
    const std::int64_t threads = 16 * std::int64_t{concurrency};
    const DeviceChains<V> chains{Kokkos::View<V*>("krait::perf::sums", static_cast<std::size_t>(threads)), V(0)};
    seconds = seconds_of(
        [&](const Exec& exec) { Kokkos::parallel_for("krait::perf::fma_peak", Threads(exec, 0, threads), chains); });
    operations = 2.0 * chains.chains * chains.rounds * static_cast<double>(threads);
  }
  return operations * peers().count / seconds;
}

/// The peak around a timed loop: clocks, too, drift with what the neighbours do.
class FmaPeak {
 public:
  explicit FmaPeak(bool double_precision)
      : measure_(double_precision ? fma_peak<double> : fma_peak<float>), before_(measure_()) {}
  [[nodiscard]] double after() const { return std::max(before_, measure_()); }

 private:
  double (*measure_)();
  double before_;
};

}  // namespace

void set_peers(const Peers& all) { peers() = all; }

double copy_bandwidth() {
  double best = copies().time(1);
  for (int attempt = 1; attempt < 8; ++attempt) best = std::min(best, copies().time(1));
  return copies().bytes() / best;
}

template <class V>
double fma_peak() {
  double best = fma_rate<V>();
  for (int attempt = 1; attempt < 5; ++attempt) best = std::max(best, fma_rate<V>());
  return best;
}
template double fma_peak<float>();
template double fma_peak<double>();

Times run(benchmark::State& state, const Cost& cost, const Call& call, const Call& beside) {
  call(Exec());
  if (beside) beside(Exec());
  const CopyBandwidth bandwidth;
  const FmaPeak multiply_adds(cost.double_precision);
  Times times;
  for (auto _ : state) {
    if (beside) times.beside += seconds_of(beside);
    const double seconds = seconds_of(call);
    state.SetIterationTime(seconds);
    times.own += seconds;
  }
  const double peak = multiply_adds.after();
  const double copied = bandwidth.after();
  const double calls_per_second = static_cast<double>(state.iterations()) / times.own;
  state.counters["tokens_per_second"] = cost.tokens * calls_per_second;
  state.counters["bytes_per_second"] = cost.bytes * calls_per_second;
  state.counters["flops"] = cost.operations * calls_per_second;
  state.counters["copy_fraction"] = cost.bytes * calls_per_second / copied;
  state.counters["flops_fraction"] = cost.operations * calls_per_second / peak;
  if (cost.in_sequence) {
    state.counters["bound_fraction"] = (cost.bytes / copied + cost.operations / peak) * calls_per_second;
  }
  return times;
}

void run_backward(benchmark::State& state, const Cost& cost, const Call& call, const Call& forward) {
  const Times times = run(state, cost, call, forward);
  state.counters["backward_over_forward"] = times.own / times.beside;
}

void add(const std::string& name, const LayerShape& shape, const char* scalar, std::int64_t length,
         const std::function<void(benchmark::State&)>& body) {
  std::string full = name + '/' + shape.name + '/' + scalar + "/L:" + std::to_string(length) +
                     "/T:" + std::to_string(Exec().concurrency());
  if (peers().count > 1) full += "/P:" + std::to_string(peers().count);
  benchmark::RegisterBenchmark(full, body)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace krait::perf
