// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the benchmarks share: shapes, data, the timed loop and the counters.

#include <benchmark/benchmark.h>

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/random.hpp>
#include <krait/core/scalars.hpp>
#include <string>

namespace krait::perf {

using Exec = Kokkos::DefaultExecutionSpace;

/// Extents of a Mamba-2 layer: heads H, head_dim P, groups G, d_state N.
struct LayerShape {
  const char* name;
  std::int64_t H;
  std::int64_t P;
  std::int64_t G;
  std::int64_t N;
};

inline constexpr LayerShape mamba2_130m{"mamba2_130m", 24, 64, 1, 128};
inline constexpr LayerShape mamba2_2p7b{"mamba2_2p7b", 80, 64, 1, 128};
inline constexpr LayerShape nemotron_h_8b{"nemotron_h_8b", 128, 64, 8, 128};
inline constexpr LayerShape odd{"odd", 5, 33, 1, 47};
inline constexpr LayerShape shapes[] = {mamba2_130m, mamba2_2p7b, nemotron_h_8b, odd};
inline constexpr std::int64_t lengths[] = {2048, 16384};

/// What one call does at least: no algorithm moves fewer bytes or needs fewer operations.
struct Cost {
  double tokens;
  double bytes;
  double operations;
  bool double_precision;
  /// Bytes and operations belong to parts that come one after the other: counter `bound_fraction` is the time that both
  /// take at the rates of copy and multiply-adds, over the time of the call.
  bool in_sequence = false;
};

/// The processes that run a benchmark together: one, unless set_peers() says otherwise.
struct Peers {
  int count = 1;
  void (*wait)() = [] {};                                        ///< until all are here
  double (*slowest)(double) = [](double mine) { return mine; };  ///< of all, on all
};
void set_peers(const Peers& peers);

using Threads = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>, Kokkos::Schedule<Kokkos::Static>>;

/// As fast as a copy gets. On hosts each thread has memcpy copy its part, which stores past the caches. The loop that
/// deep_copy is there with several threads loads what it overwrites, and reaches three quarters of that.
template <class T>
void copy(const Exec& exec, const Kokkos::View<T*>& to, const Kokkos::View<T*>& from) {
  if constexpr (impl::is_host_execution<Exec>) {
    const std::int64_t threads = exec.concurrency();
    const auto size = static_cast<std::int64_t>(from.size());
    Kokkos::parallel_for("krait::perf::copy", Threads(exec, 0, threads), [=](std::int64_t t) {
      const std::int64_t begin = size * t / threads;
      const std::int64_t end = size * (t + 1) / threads;
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
    });
  } else {
    Kokkos::deep_copy(exec, to, from);
  }
}

/// Bytes per second of such copies, load and store counted, by all threads of the default instance of all peers: the
/// best of some. The counters `copy_fraction` and `flops_fraction` of a benchmark refer to what is measured just before
/// and behind its timed loop.
double copy_bandwidth();
/// Operations per second in multiply-adds of V (float or double), by the same threads: the best of some.
template <class V>
double fma_peak();

/// Seconds of all calls of a timed loop, and of what ran beside it.
struct Times {
  double own = 0;
  double beside = 0;
};

using Call = std::function<void(const Exec&)>;

/// Runs `call` until Google Benchmark is content. Each timed section begins and ends with a fence, so it holds the work
/// and not the launch of it; between several peers it begins when all are there, and the slowest counts. `beside` runs
/// in turn with it, untimed by Google Benchmark, so that what disturbs one disturbs both and their ratio means
/// something. Sets the counters tokens_per_second, bytes_per_second, flops, copy_fraction and flops_fraction.
Times run(benchmark::State& state, const Cost& cost, const Call& call, const Call& beside = {});

/// The same for the backward of an operator, beside its forward: counter `backward_over_forward`.
void run_backward(benchmark::State& state, const Cost& cost, const Call& call, const Call& forward);

/// Registers "name/shape/scalar/L:tokens/T:threads", with several peers also "/P:ranks".
void add(const std::string& name, const LayerShape& shape, const char* scalar, std::int64_t length,
         const std::function<void(benchmark::State&)>& body);

/// The same for every scalar. `Body::run<T>(state, shape, length)`.
template <class Body>
void add_scalars(const std::string& name, const LayerShape& shape, std::int64_t length) {
  add(name, shape, scalar_name<float>(), length,
      [=](benchmark::State& state) { Body::template run<float>(state, shape, length); });
  add(name, shape, scalar_name<double>(), length,
      [=](benchmark::State& state) { Body::template run<double>(state, shape, length); });
  add(name, shape, scalar_name<bfloat16>(), length,
      [=](benchmark::State& state) { Body::template run<bfloat16>(state, shape, length); });
}

/// Registers the operator's benchmark of every shape, scalar and length.
template <class Body>
void add_all(const std::string& name) {
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t length : lengths) add_scalars<Body>(name, shape, length);
  }
}

template <class View>
struct FillUniform {
  View view;
  double low;
  double high;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    view.data()[i] = static_cast<typename View::value_type>(
        low + (high - low) * uniform(7, view.size(), static_cast<std::uint64_t>(i)));
  }
};

/// A new contiguous View of numbers in (low, high).
template <class View, class... Extents>
View data(double low, double high, Extents... extents) {
  const View view(Kokkos::view_alloc("krait::perf::data", Kokkos::WithoutInitializing),
                  static_cast<std::size_t>(extents)...);
  Kokkos::parallel_for("krait::perf::fill",
                       Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(0, std::int64_t(view.size())),
                       FillUniform<View>{view, low, high});
  Kokkos::fence("krait::perf: data are ready");
  return view;
}

void register_conv();
void register_mixer();
void register_norm();
void register_projection();
void register_scan();
/// Scan and recurrence side by side.
void register_recurrence();
/// Steps of a decode loop.
void register_update();

}  // namespace krait::perf
