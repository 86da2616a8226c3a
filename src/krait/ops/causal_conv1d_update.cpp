// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d_update.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/rows.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as both kernels see it.
template <Scalar T, class Exec>
struct Problem {
  using A = accumulator_t<T>;

  impl::Strided<T, 3> states, out;
  impl::Strided<const T, 3> x;
  impl::Strided<const A, 2> weight;
  impl::Strided<const A, 1> bias;
  impl::Strided<const std::int64_t, 1> state_map;
  std::int64_t batch, length, channels;
  int taps;
  bool silu;

  explicit Problem(const CausalConv1dUpdateArguments<T, Exec>& a)
      : states(a.states),
        out(a.out),
        x(a.x),
        weight(a.weight),
        bias(a.bias),
        state_map(a.state_map),
        batch(static_cast<std::int64_t>(a.x.extent(0))),
        length(static_cast<std::int64_t>(a.x.extent(1))),
        channels(static_cast<std::int64_t>(a.weight.extent(0))),
        taps(static_cast<int>(a.weight.extent(1))),
        silu(a.activation == Activation::silu) {}

  /// Which state a row continues; negative for padding.
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t state_of(std::int64_t row) const {
    return state_map.given() ? state_map(row) : row;
  }
  [[nodiscard]] KOKKOS_FUNCTION A bias_of(std::int64_t c) const { return bias.given() ? bias(c) : A(0); }
};

/// One thread per row and channel; any strides. Neighbouring threads take neighbouring channels.
template <Scalar T, class Exec>
struct ChannelKernel {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t row = item / problem.channels;
    const std::int64_t c = item % problem.channels;
    const std::int64_t state = problem.state_of(row);
    const int history = problem.taps - 1;
    // Input i of [state | x].
    const auto input = [&](std::int64_t i) {
      return i < history ? problem.states(state, c, i) : problem.x(row, i - history, c);
    };
    for (std::int64_t t = 0; t < problem.length; ++t) {
      A sum = A(0);
      if (state >= 0) {
        sum = problem.bias_of(c);
        for (int w = 0; w < problem.taps; ++w) sum += problem.weight(c, w) * static_cast<A>(input(t + w));
        if (problem.silu) sum = tile::silu(sum);
      }
      problem.out(row, t, c) = static_cast<T>(sum);
    }
    if (state < 0) return;
    // In ascending order: what an entry becomes lies behind it.
    for (int j = 0; j < history; ++j) problem.states(state, c, j) = input(problem.length + j);
  }
};

/// One host thread (a team of one) per strip of channels at unit stride and some rows: the parameters of the strip are
/// brought into rows once for all of them.
template <Scalar T, class Exec>
struct HostKernel {
  using A = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  static constexpr int width = 512;  // channels
  static constexpr int pitch = width + 64 / int{sizeof(A)};
  static constexpr std::int64_t rows = 8;
  static constexpr int tokens = 16;

  Problem<T, Exec> problem;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const { return strips() * ((problem.batch + rows - 1) / rows); }
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t strips() const { return (problem.channels + width - 1) / width; }

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const std::int64_t begin = item / strips() * rows;
      const std::int64_t end = begin + rows < problem.batch ? begin + rows : problem.batch;
      advance(team, item % strips() * width, begin, end);
    }
  }

 private:
  KOKKOS_FUNCTION void advance(const Member& team, std::int64_t channel, std::int64_t begin, std::int64_t end) const {
    const int columns = static_cast<int>(problem.channels - channel < width ? problem.channels - channel : width);
    const int history = problem.taps - 1;
    alignas(64) A weight[tile::max_conv_taps * pitch];
    alignas(64) A bias[pitch];
    alignas(64) A before[tile::max_conv_taps * pitch];
    tile::load(team, columns, problem.taps,
               tile::Matrix<const A>{&problem.weight(channel, 0), problem.weight.stride[0], problem.weight.stride[1]},
               tile::Matrix<A>{weight, 1, pitch});
    for (int c = 0; c < columns; ++c) bias[c] = problem.bias_of(channel + c);
    const tile::ConvStrip<A> strip{columns, pitch, problem.taps, problem.silu, false, weight, bias};
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t state = problem.state_of(row);
      if (state < 0) {
        clear(row, channel, columns);
        continue;
      }
      const tile::Matrix<A> inputs{before, 1, pitch};
      const tile::Matrix<T> kept{
          problem.states.data + state * problem.states.stride[0] + channel * problem.states.stride[1],
          problem.states.stride[1], problem.states.stride[2]};
      tile::load(team, columns, history, tile::Matrix<const T>{kept.data, kept.row, kept.column}, inputs);
      convolve(strip, row, channel, before);
      tile::load(team, columns, history, tile::Matrix<const A>{before, 1, pitch}, kept);
    }
  }

  KOKKOS_FUNCTION void convolve(const tile::ConvStrip<A>& strip, std::int64_t row, std::int64_t channel,
                                A* before) const {
    for (std::int64_t t = 0; t < problem.length; t += tokens) {
      const int count = static_cast<int>(problem.length - t < tokens ? problem.length - t : tokens);
      const T* x[tokens];
      T* out[tokens];
      for (int i = 0; i < count; ++i) {
        x[i] = &problem.x(row, t + i, channel);
        out[i] = &problem.out(row, t + i, channel);
      }
      tile::conv_rows(strip, tile::ConvTokens<T, A>{count, 0, x, before}, out);
    }
  }

  KOKKOS_FUNCTION void clear(std::int64_t row, std::int64_t channel, int columns) const {
    for (std::int64_t t = 0; t < problem.length; ++t) {
      T* out = &problem.out(row, t, channel);
      for (int c = 0; c < columns; ++c) out[c] = T(0);
    }
  }
};

template <Scalar T, class Exec>
void check(const CausalConv1dUpdateArguments<T, Exec>& a) {
  constexpr const char* function = "krait::causal_conv1d_update";
  const auto batch = static_cast<std::int64_t>(a.x.extent(0));
  const auto length = static_cast<std::int64_t>(a.x.extent(1));
  const auto channels = static_cast<std::int64_t>(a.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(a.weight.extent(1));
  KRAIT_REQUIRE(ConfigError, 1 <= taps && taps <= tile::max_conv_taps, function, ": weight has ", taps,
                " taps, expected 1 to ", tile::max_conv_taps);
  const std::int64_t states = is_absent(a.state_map) ? batch : static_cast<std::int64_t>(a.states.extent(0));
  if (!is_absent(a.state_map)) impl::require_extents(function, "state_map", extents(a.state_map), {batch});
  impl::require_extents(function, "x", extents(a.x), {batch, length, channels});
  impl::require_extents(function, "out", extents(a.out), {batch, length, channels});
  impl::require_extents(function, "states", extents(a.states), {states, channels, taps - 1});
  if (!is_absent(a.bias)) impl::require_extents(function, "bias", extents(a.bias), {channels});
}

}  // namespace

template <Scalar T, class Exec>
void causal_conv1d_update(const Exec& exec, const CausalConv1dUpdateArguments<T, Exec>& arguments) {
  const bool by_rows = impl::is_host_execution<Exec> && arguments.x.stride(2) == 1 && arguments.out.stride(2) == 1;
  const std::string label = impl::operator_label<T>("krait::causal_conv1d_update", impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  check(arguments);
  if (arguments.x.size() == 0) return;

  const Problem<T, Exec> problem(arguments);
  if constexpr (impl::is_host_execution<Exec>) {
    if (by_rows) {
      const HostKernel<T, Exec> kernel{problem};
      const auto league = static_cast<int>(std::min<std::int64_t>(kernel.items(), std::int64_t{1} << 20));
      Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, 1), kernel);
      return;
    }
  }
  Kokkos::parallel_for(
      label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, problem.batch * problem.channels),
      ChannelKernel<T, Exec>{problem});
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void causal_conv1d_update<T, EXEC>(const EXEC&, const CausalConv1dUpdateArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
