// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d_backward.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <string>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/causal_conv1d_input.hpp>
#include <krait/ops/causal_conv1d_strip.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/partial_sums.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as every kernel sees it.
template <Scalar T, class Exec>
struct Problem : impl::ConvInput<T, Exec> {
  using A = accumulator_t<T>;

  Tensor<const T***, Exec> dout;
  MixedTensor<T, 3, Exec> dfinal;
  Tensor<T***, Exec> dx;
  Tensor<A***, Exec> dinitial;
  impl::TokenBlocks blocks;
  impl::PartialSums<A> sums;  // terms: dweight of each tap, then dbias

  [[nodiscard]] KOKKOS_FUNCTION int history() const { return this->taps - 1; }

  /// Whether a part of the run that begins at token t0 has to form dX before it.
  [[nodiscard]] KOKKOS_FUNCTION bool reaches_initial(const Run& run, std::int64_t t0) const {
    return t0 == run.begin && run.has_state() && dinitial.data() != nullptr;
  }
};

template <class Exec>
impl::TokenBlocks token_blocks(std::int64_t rows, std::int64_t length) {
  return {rows * length, impl::is_host_execution<Exec> ? 512 : 32};
}

/// The recurrence along one channel of one run. Token t brings q_t, and with it dX(t - (taps - 1)) is complete.
/// Taps == 0: their number is known at run time only. Then entries beyond it are not used, but every index is still
/// known to the compiler, so that all of this stays in registers.
template <Scalar T, class Exec, int Taps>
struct Channel {
  using A = accumulator_t<T>;
  static constexpr int room = Taps == 0 ? tile::max_conv_taps : Taps;

  const Problem<T, Exec>& problem;
  std::int64_t c;
  A bias;
  A weight[room] = {};   // entry i: tap i, which brings q_(j + taps-1 - i) to dX(j)
  A delayed[room] = {};  // entry i: the tap that brings X(t - i) to o_t
  A dbias = A(0);
  A dweight[room] = {};  // entry i: gradient of delayed[i]

  KOKKOS_FUNCTION Channel(const Problem<T, Exec>& p, std::int64_t channel)
      : problem(p), c(channel), bias(p.bias_of(channel)) {
    for (int i = 0; i < room; ++i) {
      if (!used(i)) continue;
      weight[i] = p.weight(c, i);
      delayed[i] = p.weight(c, p.taps - 1 - i);
    }
  }

  [[nodiscard]] KOKKOS_FUNCTION bool used(int i) const { return Taps != 0 || i < problem.taps; }

  /// Tokens [first, last) of the run: their share in the gradients of the parameters, and on_gradient(j, dX(j)) for
  /// them and the places before them, where dX(j) has no share of earlier tokens. The tokens that follow are visited
  /// too; behind the run comes the gradient of its final state.
  template <class OnGradient>
  KOKKOS_FUNCTION void walk(const Run& run, std::int64_t first, std::int64_t last, const OnGradient& on_gradient) {
    A recent[room] = {};  // entry i: X(t - i)
    A q[room] = {};       // entry i: q_(t - i), 0 behind the run
    for (int i = 0; i < room - 1; ++i) {
      if (used(i + 1)) recent[i] = problem.input(run, first - 1 - i, c);
    }
    for (std::int64_t t = first; t < last + problem.history(); ++t) {
      for (int i = room - 1; i > 0; --i) q[i] = q[i - 1];
      q[0] = A(0);
      A gradient = A(0);
      if (t < run.end) {
        for (int i = room - 1; i > 0; --i) recent[i] = recent[i - 1];
        recent[0] = problem.input(run, t, c);
        q[0] = static_cast<A>(problem.dout(run.row, t, c));
        if (problem.silu) q[0] *= tile::silu_derivative(output(recent));
        if (t < last) add(q[0], recent);
      } else if (!problem.dfinal.absent() && run.has_state()) {
        gradient = problem.dfinal(run.state, c, t - run.end);
      }
      // The latest token first, behind the final state: so a run cut in two gives the bits of the whole.
      for (int i = 0; i < room; ++i) {
        if (used(i)) gradient += weight[i] * q[i];
      }
      on_gradient(t - problem.history(), gradient);
    }
  }

 private:
  /// o_t as in the forward: taps in ascending order.
  [[nodiscard]] KOKKOS_FUNCTION A output(const A (&recent)[room]) const {
    A sum = bias;
    for (int i = room - 1; i >= 0; --i) {
      if (used(i)) sum += delayed[i] * recent[i];
    }
    return sum;
  }

  KOKKOS_FUNCTION void add(A q, const A (&recent)[room]) {
    dbias += q;
    for (int i = 0; i < room; ++i) {
      if (used(i)) dweight[i] += q * recent[i];
    }
  }
};

/// One thread per block of tokens and channel; any strides. Neighbouring threads take neighbouring channels. The q of
/// the taps - 1 tokens behind the block are formed a second time by the next block.
template <Scalar T, class Exec, int Taps>
struct ChannelKernel {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;

  [[nodiscard]] std::int64_t items() const { return problem.blocks.count * problem.channels; }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t c = item % problem.channels;
    const std::int64_t block = item / problem.channels;
    Channel<T, Exec, Taps> channel(problem, c);
    problem.walk(
        problem.blocks.begin(block), problem.blocks.end(block),
        [&](const Run& run, std::int64_t t0, std::int64_t t1) {
          channel.walk(run, t0, t1, [&](std::int64_t j, A gradient) {
            if (j >= t0)
              problem.dx(run.row, problem.place(j), c) = static_cast<T>(gradient);
            else if (problem.reaches_initial(run, t0))
              problem.dinitial(run.state, c, j - t0 + problem.history()) = gradient;
          });
        },
        [&](std::int64_t row, std::int64_t t0, std::int64_t t1) {
          for (std::int64_t t = t0; t < t1; ++t) problem.dx(row, problem.place(t), c) = T(0);
        });
    if (problem.sums.data == nullptr) return;
    for (int i = 0; i < channel.room; ++i) {
      if (channel.used(i)) problem.sums.row(block, problem.taps - 1 - i)[c] = channel.dweight[i];
    }
    problem.sums.row(block, problem.taps)[c] = channel.dbias;
  }
};

/// One host thread per block of tokens and strip of channels at unit stride, token by token as in Channel.
template <Scalar T, class Exec, int Taps>
struct HostKernel {
  using A = accumulator_t<T>;
  using Shape = impl::ConvStripShape<A, Taps>;

  Problem<T, Exec> problem;
  std::int64_t strips;
  bool past_cache;

  explicit HostKernel(const Problem<T, Exec>& p)
      : problem(p), strips(impl::conv_strips<A, Taps>(p.channels)), past_cache(impl::goes_past_cache(p.dx)) {}

  [[nodiscard]] std::int64_t items() const { return problem.blocks.count * strips; }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    Strip strip(problem, item % strips, past_cache);
    const std::int64_t block = item / strips;
    problem.walk(
        problem.blocks.begin(block), problem.blocks.end(block),
        [&](const Run& run, std::int64_t t0, std::int64_t t1) { differentiate(strip, run, t0, t1); },
        [&](std::int64_t row, std::int64_t t0, std::int64_t t1) {
          for (std::int64_t t = t0; t < t1; ++t) strip.input.clear(strip.input.placed_row(problem.dx, row, t));
        });
    if (problem.sums.data == nullptr) return;
    for (int w = 0; w <= problem.taps; ++w) {
      const A* sums = w < problem.taps ? strip.dweight[w] : strip.dbias;
      A* to = problem.sums.row(block, w) + strip.input.channel;
      for (int c = 0; c < strip.input.columns; ++c) to[c] = sums[c];
    }
  }

 private:
  struct Strip {
    impl::ConvStripInput<T, Exec, Taps> input;
    alignas(64) A q[Taps][Shape::pitch];
    alignas(64) A dweight[Taps][Shape::pitch] = {};
    alignas(64) A dbias[Shape::pitch] = {};
    alignas(64) A row[Shape::pitch];

    KOKKOS_FUNCTION Strip(const Problem<T, Exec>& p, std::int64_t strip, bool stream) : input(p, strip, stream) {}
  };

  /// The part [t0, t1) of a run: its tokens, those behind it whose q reaches back into it, and, where the run ends
  /// before that, the gradient of its final state.
  KOKKOS_FUNCTION void differentiate(Strip& strip, const Run& run, std::int64_t t0, std::int64_t t1) const {
    const std::int64_t reach = t1 + problem.history();
    const std::int64_t end = run.end < reach ? run.end : reach;
    strip.input.enter(run, t0);
    for (int w = 0; w < problem.history(); ++w) {
      for (int c = 0; c < strip.input.columns; ++c) strip.q[w][c] = A(0);
    }
    std::int64_t t = t0;
    // These complete the gradients of places before the part.
    for (; t < end && t < t0 + problem.history(); ++t) {
      add_tokens(strip, run, t, 1, end, t < t1, false);
      if (problem.reaches_initial(run, t0)) {
        tile::conv_edge_row(strip.input.strip(), strip.q[0], 0, static_cast<const A*>(nullptr), strip.row);
        store_initial(strip, run, t - t0);
      }
    }
    while (t < end) {
      const bool counted = t < t1;
      const std::int64_t left = (counted ? t1 : end) - t;
      const auto count = static_cast<int>(left < impl::conv_tokens_at_once ? left : impl::conv_tokens_at_once);
      add_tokens(strip, run, t, count, end, counted, true);
      t += count;
    }
    for (; t < reach; ++t) {
      const std::int64_t j = t - problem.history();
      const A* incoming = problem.dfinal.absent() || !run.has_state() ? nullptr : load_final(strip, run, t - end);
      if (j >= t0) {
        tile::conv_edge_row(strip.input.strip(), strip.q[0], 1, incoming,
                            strip.input.placed_row(problem.dx, run.row, j));
      } else if (problem.reaches_initial(run, t0)) {
        tile::conv_edge_row(strip.input.strip(), strip.q[0], 1, incoming, strip.row);
        store_initial(strip, run, t - t0);
      }
      for (int w = 0; w < problem.history(); ++w) {
        for (int c = 0; c < strip.input.columns; ++c)
          strip.q[w][c] = w + 1 < problem.history() ? strip.q[w + 1][c] : A(0);
      }
    }
  }

  KOKKOS_FUNCTION void add_tokens(Strip& strip, const Run& run, std::int64_t first, int count, std::int64_t last,
                                  bool counted, bool with_dx) const {
    const int next = impl::conv_next(last - first, count);
    const T* x[impl::conv_tokens_at_once + impl::conv_tokens_next];
    const T* dout[impl::conv_tokens_at_once + impl::conv_tokens_next];
    T* dx[impl::conv_tokens_at_once];
    for (int i = 0; i < count + next; ++i) {
      x[i] = strip.input.placed_row(problem.x, run.row, first + i);
      dout[i] = strip.input.row(problem.dout, run.row, first + i);
    }
    for (int i = 0; with_dx && i < count; ++i)
      dx[i] = strip.input.placed_row(problem.dx, run.row, first + i - problem.history());
    tile::conv_gradient_rows(
        strip.input.strip(),
        tile::ConvGradientTokens<T, A>{count, next, x, dout, strip.input.history[0], strip.q[0],
                                       counted ? strip.dweight[0] : nullptr, strip.dbias, with_dx ? dx : nullptr});
  }

  KOKKOS_FUNCTION const A* load_final(Strip& strip, const Run& run, std::int64_t j) const {
    for (int c = 0; c < strip.input.columns; ++c) strip.row[c] = problem.dfinal(run.state, strip.input.channel + c, j);
    return strip.row;
  }

  KOKKOS_FUNCTION void store_initial(const Strip& strip, const Run& run, std::int64_t j) const {
    for (int c = 0; c < strip.input.columns; ++c)
      problem.dinitial(run.state, strip.input.channel + c, j) = strip.row[c];
  }
};

/// The gradients of the initial states that no token reaches: 0 where there is no run, that of the final state where
/// the run is empty. One thread per state and channel, then per run and channel.
template <Scalar T, class Exec>
struct ClearStates {
  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    for (int j = 0; j < problem.history(); ++j)
      problem.dinitial(item / problem.channels, item % problem.channels, j) = accumulator_t<T>(0);
  }
};

template <Scalar T, class Exec>
struct PassStatesOfEmptyRuns {
  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const Run run = problem.table.runs(item / problem.channels);
    const std::int64_t c = item % problem.channels;
    if (run.begin != run.end || !run.has_state()) return;
    for (int j = 0; j < problem.history(); ++j) problem.dinitial(run.state, c, j) = problem.dfinal(run.state, c, j);
  }
};

template <class Exec, class Kernel>
void launch(const Exec& exec, const std::string& label, std::int64_t items, const Kernel& kernel) {
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, items), kernel);
}

/// The kernel for any strides.
template <Scalar T, class Exec>
void launch_by_channels(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const auto launch_kernel = [&](const auto& kernel) { launch(exec, label, kernel.items(), kernel); };
  switch (problem.taps) {
    case 2:
      return launch_kernel(ChannelKernel<T, Exec, 2>{problem});
    case 3:
      return launch_kernel(ChannelKernel<T, Exec, 3>{problem});
    case 4:
      return launch_kernel(ChannelKernel<T, Exec, 4>{problem});
    default:
      return launch_kernel(ChannelKernel<T, Exec, 0>{problem});
  }
}

/// The kernel for channels at unit stride.
template <int Taps, Scalar T, class Exec>
void launch_by_rows(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const HostKernel<T, Exec, Taps> kernel(problem);
  launch(exec, label, kernel.items(), kernel);
}

constexpr const char* function_name = "krait::causal_conv1d_backward";

template <Scalar T, class Exec>
void check(const CausalConv1dBackwardArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  const char* name = function_name;
  impl::check_conv_input(name, arguments, runs);
  const auto channels = static_cast<std::int64_t>(arguments.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(arguments.weight.extent(1));
  const auto states = {runs.states(), channels, taps - 1};
  impl::require_extents(name, "dout", extents(arguments.dout), {runs.rows(), runs.length(), channels});
  impl::require_extents(name, "dx", extents(arguments.dx), extents(arguments.x));
  if (!arguments.dfinal_states.absent())
    impl::require_extents(name, "dfinal_states", arguments.dfinal_states.extents(), states);
  if (!is_absent(arguments.dinitial_states))
    impl::require_extents(name, "dinitial_states", extents(arguments.dinitial_states), states);
  if (!is_absent(arguments.dweight))
    impl::require_extents(name, "dweight", extents(arguments.dweight), {channels, taps});
  if (!is_absent(arguments.dbias)) {
    KRAIT_REQUIRE(ConfigError, !is_absent(arguments.bias), name, ": dbias is given, expected it only with bias");
    impl::require_extents(name, "dbias", extents(arguments.dbias), {channels});
  }
}

}  // namespace

template <Scalar T, class Exec>
std::size_t causal_conv1d_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t channels,
                                                   std::int64_t taps) {
  return impl::PartialSums<accumulator_t<T>>::bytes(token_blocks<Exec>(rows, length), taps + 1, channels);
}

template <Scalar T, class Exec>
void causal_conv1d_backward(const Exec& exec, const CausalConv1dBackwardArguments<T, Exec>& arguments,
                            const SequenceRuns& runs) {
  using A = accumulator_t<T>;
  const bool by_rows = impl::is_host_execution<Exec> && arguments.x.stride(2) == 1 && arguments.dout.stride(2) == 1 &&
                       arguments.dx.stride(2) == 1;
  const std::string label = impl::operator_label<T>(function_name, impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  check(arguments, runs);

  const auto blocks = token_blocks<Exec>(runs.rows(), runs.length());
  const auto channels = static_cast<std::int64_t>(arguments.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(arguments.weight.extent(1));
  impl::PartialSums<A> sums{};
  if (!is_absent(arguments.dweight) || !is_absent(arguments.dbias))
    sums = impl::partial_sums<A, Exec>(function_name, arguments.workspace, blocks, taps + 1, channels);
  const Problem<T, Exec> problem{impl::conv_input<T, Exec>(arguments, runs),
                                 arguments.dout,
                                 arguments.dfinal_states,
                                 arguments.dx,
                                 arguments.dinitial_states,
                                 blocks,
                                 sums};
  if (!is_absent(arguments.dinitial_states)) {
    launch(exec, label + "::clear_states", runs.states() * channels, ClearStates<T, Exec>{problem});
    if (!arguments.dfinal_states.absent())
      launch(exec, label + "::empty_runs", static_cast<std::int64_t>(runs.host().size()) * channels,
             PassStatesOfEmptyRuns<T, Exec>{problem});
  }
  if constexpr (impl::is_host_execution<Exec>) {
    if (by_rows && taps <= 4)
      launch_by_rows<4>(exec, label, problem);
    else if (by_rows)
      launch_by_rows<tile::max_conv_taps>(exec, label, problem);
    else
      launch_by_channels(exec, label, problem);
  } else {
    launch_by_channels(exec, label, problem);
  }
  if (!is_absent(arguments.dweight))
    impl::add_partial_sums(exec, label + "::dweight", sums, blocks, 0, arguments.dweight);
  if (!is_absent(arguments.dbias))
    impl::add_partial_sums(exec, label + "::dbias", sums, blocks, taps, impl::as_column<A, Exec>(arguments.dbias));
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                               \
  template std::size_t causal_conv1d_backward_workspace_bytes<T, EXEC>(std::int64_t, std::int64_t, std::int64_t, \
                                                                       std::int64_t);                            \
  template void causal_conv1d_backward<T, EXEC>(const EXEC&, const CausalConv1dBackwardArguments<T, EXEC>&,      \
                                                const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
