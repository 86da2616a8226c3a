// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What operators are tried on when only time matters: activations and parameters like those of a layer in training.

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>

#include <krait/core/random.hpp>
#include <krait/parallel/decay.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

template <class V, class Exec>
using TrialData = Kokkos::View<V, Kokkos::LayoutRight, typename Exec::memory_space>;

template <class Exec>
struct FillNormal {
  TrialData<float***, Exec> values;
  double scale;
  std::int64_t first;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    values.data()[i] = static_cast<float>(scale * normal(7, 0, static_cast<std::uint64_t>(first + i)));
  }
};

/// Normal numbers; `first` is the number of the first one in the whole.
template <class Exec>
TrialData<float***, Exec> trial_activations(const Exec& exec, std::int64_t rows, std::int64_t tokens,
                                            std::int64_t width, double scale, std::int64_t first = 0) {
  const TrialData<float***, Exec> values(
      Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::trial::activations"),
      static_cast<std::size_t>(rows), static_cast<std::size_t>(tokens), static_cast<std::size_t>(width));
  Kokkos::parallel_for("krait::trial::fill",
                       Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, rows * tokens * width),
                       FillNormal<Exec>{values, scale, first});
  return values;
}

/// Parameters as a layer is initialised with, or such that states hardly decay; the same on every rank.
template <class Exec>
struct TrialParameters {
  TrialData<float**, Exec> conv_weight;
  TrialData<float*, Exec> conv_bias, A_log, dt_bias, D;

  TrialParameters(const SequenceOperatorConfig& config, Decay decay)
      : conv_weight("krait::trial::conv_weight", static_cast<std::size_t>(config.conv_channels()),
                    static_cast<std::size_t>(config.d_conv)),
        conv_bias("krait::trial::conv_bias", static_cast<std::size_t>(config.conv_channels())),
        A_log("krait::trial::A_log", static_cast<std::size_t>(config.heads)),
        dt_bias("krait::trial::dt_bias", static_cast<std::size_t>(config.heads)),
        D("krait::trial::D", static_cast<std::size_t>(config.heads)) {
    Kokkos::deep_copy(conv_weight, 0.3F);
    Kokkos::deep_copy(D, 1.0F);
    const auto a = Kokkos::create_mirror_view(A_log);
    const auto dt = Kokkos::create_mirror_view(dt_bias);
    for (std::size_t h = 0; h < a.extent(0); ++h) {
      const double step = InitialDecay::step(uniform(13, 0, h));
      dt(h) = static_cast<float>(step + std::log(-std::expm1(-step)));  // softplus turned round
      const double rate = InitialDecay::rate(uniform(14, 0, h));
      a(h) = static_cast<float>(std::log(decay == Decay::slow ? 1e-4 * rate : rate));
    }
    Kokkos::deep_copy(A_log, a);
    Kokkos::deep_copy(dt_bias, dt);
  }

  [[nodiscard]] SequenceOperatorParameters<float, Exec> views() const {
    return {.conv_weight = conv_weight,
            .conv_bias = conv_bias,
            .A_log = A_log,
            .dt_bias = dt_bias,
            .D = D,
            .D_per_channel = {}};
  }
};

}  // namespace krait::impl
