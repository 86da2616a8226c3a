// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Speed of the operators, as fractions of what this machine does in this process: `copy_fraction` is the bytes that
// have to move over the bandwidth of a copy, `flops_fraction` the operations that have to be done over the peak rate of
// multiply-adds. Whichever is larger is the bound that matters.
#include "harness.hpp"
#include "report.hpp"

namespace {

void peak(benchmark::State& state, const char* counter, double value) {
  for (auto _ : state) state.SetIterationTime(1);
  state.counters[counter] = value;
}

void add_peak(const std::string& name, const char* counter, double (*measure)()) {
  benchmark::RegisterBenchmark("peak/" + name + "/T:" + std::to_string(krait::perf::Exec().concurrency()),
                               [=](benchmark::State& state) { peak(state, counter, measure()); })
      ->UseManualTime()
      ->Iterations(1);
}

}  // namespace

int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  krait::perf::add_context();
  add_peak("copy", "bytes_per_second", krait::perf::copy_bandwidth);
  add_peak("fma/float", "flops", krait::perf::fma_peak<float>);
  add_peak("fma/double", "flops", krait::perf::fma_peak<double>);
  krait::perf::register_conv();
  krait::perf::register_mixer();
  krait::perf::register_norm();
  krait::perf::register_projection();
  krait::perf::register_recurrence();
  krait::perf::register_scan();
  krait::perf::register_update();
  const int status = krait::perf::run_benchmarks(true);
  benchmark::Shutdown();
  return status;
}
