// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <cmath>
#include <krait/core/kokkos_shims.hpp>
#include <limits>

#include "recurrence.hpp"
#include "scan_tensors.hpp"

namespace krait::perf {
namespace {

/// Heads side by side, each token by token.
template <class T>
struct Heads {
  ScanTensors<T> tensors;
  typename ScanTensors<T>::Activations out;
  Kokkos::View<T**, Kokkos::LayoutRight> states;

  void operator()(std::int64_t head) const {
    const SsdScanShape& s = tensors.shape;
    const std::int64_t group = head / (s.heads / s.groups);
    run_recurrence<T>({.length = s.length,
                       .head_dim = s.head_dim,
                       .d_state = s.d_state,
                       .x = &tensors.x(0, 0, head, 0),
                       .dt = &tensors.dt(0, 0, head),
                       .B = &tensors.B(0, 0, group, 0),
                       .C = &tensors.C(0, 0, group, 0),
                       .x_pitch = s.heads * s.head_dim,
                       .dt_pitch = s.heads,
                       .group_pitch = s.groups * s.d_state,
                       .A = tensors.A(head),
                       .D = tensors.D(head),
                       .state = &states(head, 0),
                       .out = &out(0, 0, head, 0)});
  }
};

/// The largest difference of two results over the largest number.
template <class View>
double difference(const View& a, const View& b) {
  double largest = 0;
  double error = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double(b.data()[i])));
    error = std::max(error, std::abs(double(a.data()[i]) - double(b.data()[i])));
  }
  return error / largest;
}

struct TokenByToken {
  template <class T>
  static void run(benchmark::State& state, const LayerShape& s, std::int64_t length) {
    using Activations = typename ScanTensors<T>::Activations;
    const ScanTensors<T> tensors(s, length);
    const SsdScanPlan<T> plan(Exec(), tensors.shape);
    const Heads<T> heads{
        tensors, data<Activations>(0, 1, 1, length, s.H, s.P),
        Kokkos::View<T**, Kokkos::LayoutRight>("krait::perf::states", static_cast<std::size_t>(s.H),
                                               static_cast<std::size_t>(recurrence_state_size<T>(s.P, s.N)))};
    using Policy = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>, Kokkos::Schedule<Kokkos::Dynamic>>;
    const Times times = perf::run(
        state, tensors.cost(2, 2, 1, 4),
        [&](const Exec& exec) {
          Kokkos::parallel_for("krait::perf::recurrence", Policy(exec, 0, s.H, Kokkos::ChunkSize(1)), heads);
        },
        [&](const Exec& exec) { ssd_scan<T>(exec, plan, tensors.forward(), tensors.runs); });
    state.counters["scan_speedup"] = times.own / times.beside;
    const double error = difference(heads.out, tensors.out);
    if (!(error < 100 * std::numeric_limits<T>::epsilon())) state.SkipWithError("differs from the scan");
  }
};

/// Only hosts have it, and no 2-byte scalars. A template, as a device's compiler must not see the calls.
template <class E>
void register_on() {
  if constexpr (impl::is_host_execution<E>) {
    for (const LayerShape& shape : shapes) {
      for (const std::int64_t length : lengths) {
        add("ssd_scan/recurrence", shape, scalar_name<float>(), length,
            [=](benchmark::State& state) { TokenByToken::run<float>(state, shape, length); });
        add("ssd_scan/recurrence", shape, scalar_name<double>(), length,
            [=](benchmark::State& state) { TokenByToken::run<double>(state, shape, length); });
      }
    }
  }
}

}  // namespace

void register_recurrence() { register_on<Exec>(); }

}  // namespace krait::perf
