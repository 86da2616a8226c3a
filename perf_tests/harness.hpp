// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the benchmarks share: shapes, data, the timed loop and the counters.

#include <benchmark/benchmark.h>

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <functional>
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

inline constexpr LayerShape shapes[] = {
    {"mamba2_130m", 24, 64, 1, 128}, {"mamba2_2p7b", 80, 64, 1, 128}, {"odd", 5, 33, 1, 47}};
inline constexpr std::int64_t lengths[] = {2048, 16384};

/// What one call does at least: no algorithm moves fewer bytes or needs fewer operations.
struct Cost {
  double tokens;
  double bytes;
  double operations;
  bool double_precision;
};

/// Bytes per second of a copy, load and store counted, by all threads of the default instance: the best of some. The
/// counter `copy_fraction` of a benchmark refers to copies just before and behind its timed loop.
double copy_bandwidth();
/// Operations per second in single precision (measured once) or double precision (half of it).
double fma_peak(bool double_precision);

/// Runs `call` until Google Benchmark is content. Each timed section begins and ends with a fence, so it holds the work
/// and not the launch of it.
void run(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call);

/// The same for the backward of an operator; `forward` runs in turn with it, so that what disturbs one disturbs both,
/// and the counter `backward_over_forward` is the ratio of their times.
void run_backward(benchmark::State& state, const Cost& cost, const std::function<void(const Exec&)>& call,
                  const std::function<void(const Exec&)>& forward);

/// Registers "name/shape/scalar/L:tokens/T:threads".
void add(const std::string& name, const LayerShape& shape, const char* scalar, std::int64_t length,
         const std::function<void(benchmark::State&)>& body);

/// Registers the operator's benchmark of every shape, scalar and length. `Body::run<T>(state, shape, length)`.
template <class Body>
void add_all(const std::string& name) {
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t length : lengths) {
      add(name, shape, scalar_name<float>(), length,
          [=](benchmark::State& state) { Body::template run<float>(state, shape, length); });
      add(name, shape, scalar_name<bfloat16>(), length,
          [=](benchmark::State& state) { Body::template run<bfloat16>(state, shape, length); });
    }
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

}  // namespace krait::perf
