// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Speed of the operators, as fractions of what this machine does in this process: `copy_fraction` is the bytes that
// have to move over the bandwidth of a copy, `flops_fraction` the operations that have to be done over the peak rate of
// multiply-adds. Whichever is larger is the bound that matters.
#include <cstdlib>
#include <krait/core/config.hpp>
#include <sstream>

#include "harness.hpp"

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "(not set)" : value;
}

/// Kokkos's own description on one line.
std::string kokkos_configuration() {
  std::ostringstream text;
  Kokkos::print_configuration(text);
  std::string line;
  for (const char c : text.str()) {
    if (c != '\n')
      line += c;
    else if (!line.empty() && line.back() != ';')
      line += ';';
  }
  return line;
}

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
  benchmark::AddCustomContext("krait", KRAIT_VERSION_STRING);
  benchmark::AddCustomContext("kokkos", kokkos_configuration());
  benchmark::AddCustomContext("compiler", __VERSION__);
  benchmark::AddCustomContext("OMP_NUM_THREADS", environment("OMP_NUM_THREADS"));
  benchmark::AddCustomContext("OMP_PROC_BIND", environment("OMP_PROC_BIND"));
  add_peak("copy", "bytes_per_second", krait::perf::copy_bandwidth);
  add_peak("fma/float", "flops", krait::perf::fma_peak<float>);
  add_peak("fma/double", "flops", krait::perf::fma_peak<double>);
  krait::perf::register_conv();
  krait::perf::register_mixer();
  krait::perf::register_norm();
  krait::perf::register_projection();
  krait::perf::register_recurrence();
  krait::perf::register_scan();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
