// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/machine.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <krait/comm/collectives.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/runs.hpp>
#include <krait/ops/ssd_scan.hpp>

namespace krait {
namespace {

/// Seconds of one call, the best of a few after a first one that is not counted. Between ranks that call together: the
/// number of calls is fixed.
template <class Exec, class Call>
double seconds_of(const Exec& exec, const Communicator& comm, const Call& call) {
  constexpr int calls = 5;
  call();
  exec.fence("krait::calibrate: warm");
  double best = INFINITY;
  for (int i = 0; i < calls; ++i) {
    comm.barrier();
    const Kokkos::Timer timer;
    call();
    exec.fence("krait::calibrate: one call is done");
    best = std::min(best, timer.seconds());
  }
  return std::max(best, 1e-9);  // a clock may stand still
}

template <class V, class Exec>
using Filled = Kokkos::View<V, Kokkos::LayoutRight, typename Exec::memory_space>;

/// An allocation is zero; that is a fine input for all of these.
template <class V, class Exec, class... Extents>
Filled<V, Exec> zeros(const Exec& exec, Extents... extents) {
  return Filled<V, Exec>(Kokkos::view_alloc(exec, "krait::calibrate::data"), static_cast<std::size_t>(extents)...);
}

template <class Exec>
double seconds_per_operation(const Exec& exec, const Communicator& comm) {
  const std::int64_t heads = std::clamp(exec.concurrency(), 8, 128);
  const SsdScanShape shape{.batch = 1, .length = 1024, .heads = heads, .head_dim = 64, .groups = 1, .d_state = 128};
  const SsdScanPlan<float, Exec> plan(exec, shape);
  const auto x = zeros<float****, Exec>(exec, 1, shape.length, heads, shape.head_dim);
  const auto dt = zeros<float***, Exec>(exec, 1, shape.length, heads);
  const auto A = zeros<float*, Exec>(exec, heads);
  const auto B = zeros<float****, Exec>(exec, 1, shape.length, 1, shape.d_state);
  const auto C = zeros<float****, Exec>(exec, 1, shape.length, 1, shape.d_state);
  const auto out = zeros<float****, Exec>(exec, 1, shape.length, heads, shape.head_dim);
  Kokkos::deep_copy(exec, A, -1.0F);
  SsdScanArguments<float, Exec> arguments;
  arguments.x = x;
  arguments.dt = dt;
  arguments.A = A;
  arguments.B = B;
  arguments.C = C;
  arguments.out = out;
  const SequenceRuns runs = SequenceRuns::whole_rows(1, shape.length);
  const double seconds = seconds_of(exec, comm, [&] { ssd_scan(exec, plan, arguments, runs); });
  return seconds / (4.0 * static_cast<double>(heads * shape.head_dim * shape.d_state * shape.length));
}

template <class Exec>
double seconds_per_byte_of_copy(const Exec& exec, const Communicator& comm) {
  constexpr std::int64_t elements = std::int64_t{1} << 23;
  const auto from = zeros<float*, Exec>(exec, elements);
  const auto to = zeros<float*, Exec>(exec, elements);
  return seconds_of(exec, comm, [&] { Kokkos::deep_copy(exec, to, from); }) / (2.0 * elements * sizeof(float));
}

template <class Exec>
double seconds_per_message(const Exec& exec, const Communicator& comm) {
  constexpr int messages = 50;
  const auto from = zeros<float*, Exec>(exec, 2);
  const auto to = zeros<float*, Exec>(exec, 2);
  // Half the ring away, so that messages leave the node where there are several.
  const int distance = std::max(1, comm.size() / 2);
  return seconds_of(exec, comm,
                    [&] {
                      for (int i = 0; i < messages; ++i) comm::shift(exec, comm, from, to, distance).wait_on(exec);
                    }) /
         messages;
}

template <class Exec>
double seconds_per_byte_sent(const Exec& exec, const Communicator& comm, double latency) {
  const std::int64_t ranks = comm.size();
  const std::int64_t block = std::max<std::int64_t>(1 << 12, (std::int64_t{1} << 21) / ranks);
  const auto from = zeros<float*, Exec>(exec, block * ranks);
  const auto to = zeros<float*, Exec>(exec, block * ranks);
  const double seconds = seconds_of(exec, comm, [&] { comm::all_to_all(exec, comm, from, to).wait_on(exec); });
  const auto others = static_cast<double>(ranks - 1);
  // What the messages cost however short is counted apart, but a part of the time is always that of the bytes.
  return std::max(seconds - others * latency, 0.5 * seconds) / (others * static_cast<double>(block) * sizeof(float));
}

}  // namespace

void Machine::validate() const {
  const auto require_positive = [](const char* name, double value) {
    KRAIT_REQUIRE(ConfigError, std::isfinite(value) && value > 0, "krait::Machine: ", name, " is ", value,
                  ", expected a positive number");
  };
  require_positive("scan_flops", scan_flops);
  require_positive("memory_bandwidth", memory_bandwidth);
  require_positive("network_bandwidth", network_bandwidth);
  require_positive("latency", latency);
}

template <class Exec>
Machine calibrate(const Exec& exec, const Communicator& comm) {
  const Kokkos::Profiling::ScopedRegion region("krait::calibrate");
  const Kokkos::View<double*, typename Exec::memory_space> seconds("krait::calibrate::seconds", 4);
  const auto host = Kokkos::create_mirror_view(seconds);
  host(0) = seconds_per_operation(exec, comm);
  host(1) = seconds_per_byte_of_copy(exec, comm);
  host(2) = comm.size() > 1 ? seconds_per_message(exec, comm) : Machine().latency;
  host(3) = comm.size() > 1 ? seconds_per_byte_sent(exec, comm, host(2)) : 1 / Machine().network_bandwidth;
  Kokkos::deep_copy(exec, seconds, host);
  comm::all_reduce(exec, comm, seconds, seconds, Reduction::max).wait_on(exec);
  Kokkos::deep_copy(exec, host, seconds);
  exec.fence("krait::calibrate: the slowest rank is known");
  return {
      .scan_flops = 1 / host(0), .memory_bandwidth = 1 / host(1), .network_bandwidth = 1 / host(3), .latency = host(2)};
}

#define KRAIT_INSTANTIATE(EXEC) template Machine calibrate<EXEC>(const EXEC&, const Communicator&);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
