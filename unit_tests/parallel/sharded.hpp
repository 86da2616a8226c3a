// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Problems whose every value is a function of its place in the whole problem, so that each rank can make its shard,
/// and also the whole, by itself.

#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>
#include <functional>
#include <krait/comm/communicator.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/random.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/parallel/decay.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <string>
#include <support/view_values.hpp>
#include <utility>
#include <vector>

namespace krait::test {

using Exec = Kokkos::DefaultExecutionSpace;
template <class DataType>
using Array = Kokkos::View<DataType, Kokkos::LayoutRight, Exec::memory_space>;

/// Largest relative RMS difference that a split over ranks may make.
template <Scalar T>
constexpr double split_tolerance() {
  if constexpr (std::is_same_v<T, double>) return 1e-12;
  if constexpr (std::is_same_v<T, float>) return 1e-5;
  return 3e-3;
}

/// A shard of a (rows, length, width) tensor: entry (b, i, c) is value(b, token of local i, c).
template <class T, class Value>
Array<T***> make_shard(const SequenceLayout& layout, std::int64_t rows, std::int64_t width, const Value& value) {
  const Array<T***> shard("krait::test::shard", static_cast<std::size_t>(rows),
                          static_cast<std::size_t>(layout.local_length()), static_cast<std::size_t>(width));
  const auto host = Kokkos::create_mirror_view(shard);
  for (std::int64_t b = 0; b < rows; ++b)
    for (std::int64_t i = 0; i < layout.local_length(); ++i)
      for (std::int64_t c = 0; c < width; ++c) host(b, i, c) = T(value(b, layout.global_of_local(i), c));
  Kokkos::deep_copy(shard, host);
  return shard;
}

/// Normal numbers as a function of (row, token, column).
inline auto normal_values(std::uint64_t seed, std::int64_t length, std::int64_t width) {
  return [=](std::int64_t b, std::int64_t t, std::int64_t c) {
    return static_cast<float>(normal(seed, 0, static_cast<std::uint64_t>((b * length + t) * width + c)));
  };
}

/// The shard's part of a whole (rows, length, width) tensor, as values.
template <class View>
std::vector<double> shard_of_whole(const View& whole, const SequenceLayout& layout) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), whole);
  std::vector<double> values;
  for (std::size_t b = 0; b < host.extent(0); ++b)
    for (std::int64_t i = 0; i < layout.local_length(); ++i)
      for (std::size_t c = 0; c < host.extent(2); ++c)
        values.push_back(static_cast<double>(host(b, static_cast<std::size_t>(layout.global_of_local(i)), c)));
  return values;
}

/// sqrt(sum (got - want)^2 / sum want^2) over all ranks would hide a bad rank, so it is taken on each. A shard without
/// tokens differs by 0.
inline double relative_rms(const std::vector<double>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return INFINITY;
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return error == 0 ? 0 : std::sqrt(error / norm);
}

/// Operator parameters as a layer would have them.
template <Scalar T>
struct OperatorParameters {
  using A = accumulator_t<T>;
  Array<A**> conv_weight;
  Array<A*> conv_bias;
  Array<A*> A_log;
  Array<A*> dt_bias;
  Array<A*> D;

  OperatorParameters(const SequenceOperatorConfig& config, Decay decay)
      : conv_weight("krait::test::conv_weight", static_cast<std::size_t>(config.conv_channels()),
                    static_cast<std::size_t>(config.d_conv)),
        conv_bias("krait::test::conv_bias", static_cast<std::size_t>(config.conv_channels())),
        A_log("krait::test::A_log", static_cast<std::size_t>(config.heads)),
        dt_bias("krait::test::dt_bias", static_cast<std::size_t>(config.heads)),
        D("krait::test::D", static_cast<std::size_t>(config.heads)) {
    const auto weight = Kokkos::create_mirror_view(conv_weight);
    const auto bias = Kokkos::create_mirror_view(conv_bias);
    const auto a = Kokkos::create_mirror_view(A_log);
    const auto dt = Kokkos::create_mirror_view(dt_bias);
    const auto d = Kokkos::create_mirror_view(D);
    for (std::size_t c = 0; c < bias.extent(0); ++c) {
      bias(c) = static_cast<A>(0.1 * normal(11, 0, c));
      for (std::size_t w = 0; w < weight.extent(1); ++w) weight(c, w) = static_cast<A>(normal(12, c, w) / 2);
    }
    for (std::size_t h = 0; h < a.extent(0); ++h) {
      const double step = std::exp(std::log(1e-3) + uniform(13, 0, h) * std::log(100.0));
      dt(h) = static_cast<A>(step + std::log(-std::expm1(-step)));
      const double rate = 1 + 15 * uniform(14, 0, h);
      a(h) = static_cast<A>(std::log(decay == Decay::slow ? 1e-3 * rate : rate));
      d(h) = static_cast<A>(normal(15, 0, h));
    }
    Kokkos::deep_copy(conv_weight, weight);
    Kokkos::deep_copy(conv_bias, bias);
    Kokkos::deep_copy(A_log, a);
    Kokkos::deep_copy(dt_bias, dt);
    Kokkos::deep_copy(D, d);
  }

  [[nodiscard]] SequenceOperatorParameters<T, Exec> views() const {
    return {.conv_weight = conv_weight,
            .conv_bias = conv_bias,
            .A_log = A_log,
            .dt_bias = dt_bias,
            .D = D,
            .D_per_channel = {}};
  }
};

/// Gradients by name, in order.
using NamedGradients = std::vector<std::pair<std::string, std::vector<double>>>;

/// A gradient's sum over the ranks.
template <class View>
std::vector<double> sum_over_ranks(const Communicator& context, const View& view) {
  const Exec exec;
  const Array<double*> values("krait::test::values", view.size());
  assign(values, values_of(view));
  comm::all_reduce(exec, context, values, values, Reduction::sum).wait();
  return values_of(values);
}

/// Gradients of them, zero at first.
template <Scalar T>
struct OperatorGradients {
  using A = accumulator_t<T>;
  SequenceOperatorGradients<T, Exec> views;

  explicit OperatorGradients(const SequenceOperatorParameters<T, Exec>& parameters) {
    const auto add = [this](const char* name, auto& gradient, const auto& parameter) {
      if (is_absent(parameter)) return;
      using View = std::remove_reference_t<decltype(gradient)>;
      using Memory = Kokkos::View<typename View::data_type, Kokkos::LayoutRight, Exec::memory_space>;
      Memory memory;
      if constexpr (View::rank() == 2) {
        memory = Memory("krait::test::gradient", parameter.extent(0), parameter.extent(1));
      } else {
        memory = Memory("krait::test::gradient", parameter.extent(0));
      }
      gradient = memory;
      sums_.emplace_back(name, [memory](const Communicator& context) { return sum_over_ranks(context, memory); });
    };
    add("conv_weight", views.conv_weight, parameters.conv_weight);
    add("conv_bias", views.conv_bias, parameters.conv_bias);
    add("A_log", views.A_log, parameters.A_log);
    add("dt_bias", views.dt_bias, parameters.dt_bias);
    add("D", views.D, parameters.D);
    add("D_per_channel", views.D_per_channel, parameters.D_per_channel);
  }

  /// The gradients of the sum of all ranks' losses.
  [[nodiscard]] NamedGradients sums(const Communicator& context) const {
    NamedGradients result;
    for (const auto& [name, sum] : sums_) result.emplace_back(name, sum(context));
    return result;
  }

 private:
  std::vector<std::pair<std::string, std::function<std::vector<double>(const Communicator&)>>> sums_;
};

/// Every gradient's relative RMS difference is at most `tolerance`.
inline testing::AssertionResult gradients_close(const NamedGradients& got, const NamedGradients& want,
                                                double tolerance) {
  if (got.size() != want.size()) return testing::AssertionFailure() << got.size() << " gradients";
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = relative_rms(got[i].second, want[i].second);
    if (got[i].first != want[i].first || !(difference <= tolerance))
      return testing::AssertionFailure() << got[i].first << " differs by " << difference;
  }
  return testing::AssertionSuccess();
}

/// The kinds of layout a test runs through; `cu` cuts the per-document zigzag.
inline std::vector<SequenceLayout> all_layouts(const Place& place, std::int64_t length,
                                               const std::vector<std::int64_t>& cu) {
  std::vector<std::vector<std::int64_t>> striped(static_cast<std::size_t>(place.size));
  for (std::int64_t t = 0; t < length; ++t)
    striped[static_cast<std::size_t>((t / 3) % place.size)].push_back(length - 1 - t);
  return {SequenceLayout::contiguous(place, length), SequenceLayout::zigzag(place, length),
          SequenceLayout::zigzag_docs(place, cu), SequenceLayout::explicit_tokens(place, striped)};
}

/// A tensor at the beginning of memory that may be larger than it.
template <Scalar T>
struct WithRoom {
  Array<T*> memory;
  Tensor<T***, Exec> tensor;
};

template <Scalar T>
WithRoom<T> with_room(const Array<T***>& view, std::int64_t elements) {
  WithRoom<T> result;
  result.memory = Array<T*>("krait::test::with_room", std::max(view.size(), static_cast<std::size_t>(elements)));
  result.tensor = make_tensor<T***, Exec, 3>(
      result.memory.data(), {static_cast<std::int64_t>(view.extent(0)), static_cast<std::int64_t>(view.extent(1)),
                             static_cast<std::int64_t>(view.extent(2))});
  Kokkos::deep_copy(Exec(), result.tensor, view);
  return result;
}

/// Rows that are all cut at the same boundaries.
inline DocumentMap packed(std::int64_t rows, const std::vector<std::int64_t>& cu) {
  return DocumentMap::from_cu_seqlens_per_row(
      std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(rows), cu), cu.back());
}

/// A small operator, uneven where it must be.
inline SequenceOperatorConfig small(std::int64_t heads, std::int64_t groups, const Communicator& world) {
  SequenceOperatorConfig config{.heads = heads, .head_dim = 4, .groups = groups, .d_state = 6, .chunk_size = 8};
  const bool divides =
      heads % world.size() == 0 && (groups < world.size() ? world.size() % groups == 0 : groups % world.size() == 0);
  if (!divides) config.divisibility = Divisibility::uneven;
  return config;
}

inline const std::vector<std::int64_t> documents_of_61 = {0, 5, 5, 6, 29, 31, 48, 61};

}  // namespace krait::test
