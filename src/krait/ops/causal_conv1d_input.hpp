// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What forward and backward of causal_conv1d() share: the tensors that go in, and how tokens are walked.

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/core/error.hpp>
#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/activation.hpp>
#include <krait/ops/checks.hpp>
#include <krait/tile/conv_strip.hpp>
#include <krait/tile/pack.hpp>

namespace krait::impl {

/// Tokens, counted through all rows, that one thread walks: it begins with the inputs before them.
constexpr std::int64_t conv_block_of(bool on_device) { return on_device ? 32 : 256; }
template <class Exec>
inline constexpr std::int64_t conv_block = conv_block_of(!is_host_execution<Exec>);

/// The inputs of the convolution, as every kernel sees them.
template <Scalar T, class Exec>
struct ConvInput {
  using A = accumulator_t<T>;
  using Memory = typename Exec::memory_space;

  Tensor<const T***, Exec> x;
  Tensor<const A**, Exec> weight;
  Tensor<const A*, Exec> bias;
  MixedTensor<T, 3, Exec> initial;
  Tensor<const std::int64_t*, Exec> x_map;
  SequenceRuns::Table<Memory> table;
  std::int64_t length;
  std::int64_t channels;
  int taps;
  bool silu;
  /// Where outputs take the place of inputs: the inputs before each block of tokens, (blocks, taps - 1, channels).
  Tensor<T***, Exec> before_blocks = {};

  [[nodiscard]] KOKKOS_FUNCTION bool in_place() const { return before_blocks.data() != nullptr; }

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t place(std::int64_t t) const {
    return x_map.data() == nullptr ? t : x_map(t);
  }

  /// Input of channel c at token t of the run's row; the tokens before the run are its initial state.
  [[nodiscard]] KOKKOS_FUNCTION A input(const Run& run, std::int64_t t, std::int64_t c) const {
    if (t >= run.begin) return static_cast<A>(x(run.row, place(t), c));
    return initial.absent() || !run.has_state() ? A(0) : initial(run.state, c, t - run.begin + taps - 1);
  }

  /// Input w of the taps - 1 before token t, to which a walk comes: there the run begins, or a block.
  [[nodiscard]] KOKKOS_FUNCTION A input_before(const Run& run, std::int64_t t, int w, std::int64_t c) const {
    const std::int64_t token = t - (taps - 1) + w;
    if (in_place() && token >= run.begin) return static_cast<A>(before_blocks(block_of(run, t), w, c));
    return input(run, token, c);
  }

  [[nodiscard]] KOKKOS_FUNCTION A bias_of(std::int64_t c) const { return bias.data() == nullptr ? A(0) : bias(c); }

  /// input() of the N channels from c on.
  template <int N>
  KOKKOS_FUNCTION void inputs(const Run& run, std::int64_t t, std::int64_t c, A (&to)[N]) const {
    if (t >= run.begin) return tile::load_packs<N>(&x(run.row, place(t), c), to);
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) to[n] = input(run, t, c + n);
  }

  /// input_before() of the N channels from c on.
  template <int N>
  KOKKOS_FUNCTION void inputs_before(const Run& run, std::int64_t t, int w, std::int64_t c, A (&to)[N]) const {
    const std::int64_t token = t - (taps - 1) + w;
    if (in_place() && token >= run.begin) return tile::load_packs<N>(&before_blocks(block_of(run, t), w, c), to);
    inputs(run, token, c, to);
  }

  /// Weights and bias of the N channels from c on. Those of several channels lie in packs.
  template <int Taps, int N>
  KOKKOS_FUNCTION void parameters(std::int64_t c, A (&weights)[Taps][N], A (&biases)[N]) const {
    A rows[N * Taps];  // as they lie in memory, channel by channel
    if constexpr (N == 1) {
      for (int w = 0; w < Taps; ++w) rows[w] = weight(c, w);
    } else {
      tile::load_packs<N * Taps>(&weight(c, 0), rows);
    }
    KRAIT_UNROLLED
    for (int w = 0; w < Taps; ++w) {
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) weights[w][n] = rows[n * Taps + w];
    }
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) biases[n] = A(0);
    if (bias.data() != nullptr) tile::load_packs<N>(&bias(c), biases);
  }

  /// Whether a GPU can take packs of channels.
  [[nodiscard]] bool has_whole_packs() const {
    return tile::has_whole_packs(x) && tile::is_aligned(weight.data()) && weight.stride(1) == 1 &&
           static_cast<std::int64_t>(weight.stride(0)) == taps &&
           (bias.data() == nullptr || (tile::is_aligned(bias.data()) && bias.stride(0) == 1));
  }

  /// Cuts tokens [first, last) of all rows, counted through, into the parts of runs, on_run(run, t0, t1), and what lies
  /// between them, on_padding(row, t0, t1).
  template <class OnRun, class OnPadding>
  KOKKOS_FUNCTION void walk(std::int64_t first, std::int64_t last, const OnRun& on_run,
                            const OnPadding& on_padding) const {
    while (first < last) {
      const std::int64_t row = first / length;
      const std::int64_t start = first - row * length;
      const std::int64_t stop = length < start + last - first ? length : start + last - first;
      walk_row(row, start, stop, on_run, on_padding);
      first += stop - start;
    }
  }

 private:
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t block_of(const Run& run, std::int64_t t) const {
    return (run.row * length + t) / conv_block<Exec>;
  }

  template <class OnRun, class OnPadding>
  KOKKOS_FUNCTION void walk_row(std::int64_t row, std::int64_t first, std::int64_t last, const OnRun& on_run,
                                const OnPadding& on_padding) const {
    std::int64_t r = table.offsets(row);
    const std::int64_t row_end = table.offsets(row + 1);
    // The first run that ends behind `first`: ends ascend, empty runs included.
    for (std::int64_t above = row_end; r < above;) {
      const std::int64_t middle = r + (above - r) / 2;
      if (table.runs(middle).end > first)
        above = middle;
      else
        r = middle + 1;
    }
    std::int64_t t = first;
    for (; r < row_end && t < last; ++r) {
      const Run run = table.runs(r);
      if (t < run.begin) {
        const std::int64_t stop = run.begin < last ? run.begin : last;
        on_padding(row, t, stop);
        t = stop;
      }
      const std::int64_t stop = run.end < last ? run.end : last;
      if (t < stop) {
        on_run(run, t, stop);
        t = stop;
      }
    }
    if (t < last) on_padding(row, t, last);
  }
};

/// The inputs among the arguments of causal_conv1d() or causal_conv1d_backward().
template <Scalar T, class Exec, class Arguments>
ConvInput<T, Exec> conv_input(const Arguments& arguments, const SequenceRuns& runs) {
  return {arguments.x,
          arguments.weight,
          arguments.bias,
          arguments.initial_states,
          arguments.x_map,
          runs.on<typename Exec::memory_space>(),
          runs.length(),
          static_cast<std::int64_t>(arguments.weight.extent(0)),
          static_cast<int>(arguments.weight.extent(1)),
          arguments.activation == Activation::silu};
}

template <class Arguments>
void check_conv_input(const char* name, const Arguments& arguments, const SequenceRuns& runs) {
  const auto channels = static_cast<std::int64_t>(arguments.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(arguments.weight.extent(1));
  KRAIT_REQUIRE(ConfigError, 1 <= taps && taps <= tile::max_conv_taps, name, ": weight has ", taps,
                " taps, expected 1 to ", tile::max_conv_taps);
  if (is_absent(arguments.x_map)) {
    require_extents(name, "x", extents(arguments.x), {runs.rows(), runs.length(), channels});
  } else {
    require_extents(name, "x_map", extents(arguments.x_map), {runs.length()});
    require_extents(name, "x", extents(arguments.x),
                    {runs.rows(), static_cast<std::int64_t>(arguments.x.extent(1)), channels});
  }
  if (!is_absent(arguments.bias)) require_extents(name, "bias", extents(arguments.bias), {channels});
  if (!arguments.initial_states.absent())
    require_extents(name, "initial_states", arguments.initial_states.extents(), {runs.states(), channels, taps - 1});
}

}  // namespace krait::impl
