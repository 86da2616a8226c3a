// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Problems whose every value is a function of its place in the whole problem, so that each rank can make its shard,
/// and also the whole, by itself.

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <krait/core/random.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <string>
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

/// How fast states decay: as layers are initialised, or so slowly that everything reaches the last token.
enum class Decay { initialised, slow };

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

/// The kinds of layout a test runs through; `cu` cuts the per-document zigzag.
inline std::vector<SequenceLayout> all_layouts(const Place& place, std::int64_t length,
                                               const std::vector<std::int64_t>& cu) {
  std::vector<std::vector<std::int64_t>> striped(static_cast<std::size_t>(place.size));
  for (std::int64_t t = 0; t < length; ++t)
    striped[static_cast<std::size_t>((t / 3) % place.size)].push_back(length - 1 - t);
  return {SequenceLayout::contiguous(place, length), SequenceLayout::zigzag(place, length),
          SequenceLayout::zigzag_docs(place, cu), SequenceLayout::explicit_tokens(place, striped)};
}

}  // namespace krait::test
