// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d_backward.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <string>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/causal_conv1d_input.hpp>
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
  impl::TokenBlocks blocks;
  impl::PartialSums<A> sums;  // terms: dweight of each tap, then dbias
};

template <class Exec>
impl::TokenBlocks token_blocks(std::int64_t rows, std::int64_t length) {
  return {rows * length, impl::is_host_execution<Exec> ? 256 : 32};
}

/// The recurrence along one channel of one run. Token t brings q_t, and with it dX(t - (taps - 1)) is complete.
/// Taps == 0: their number is known at run time only. Then entries beyond it are not used, but every index is still
/// known to the compiler, so that all of this stays in registers.
template <Scalar T, class Exec, int Taps>
struct Channel {
  using A = accumulator_t<T>;
  static constexpr int room = Taps == 0 ? impl::max_conv_taps : Taps;

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

  /// Tokens [first, last), of which those behind the run only bring the gradient of its final state. Tokens below
  /// `counted` are added to the gradients of the parameters. on_gradient(j, dX(j)) for j = t - (taps - 1); it is wrong
  /// for j < first.
  template <class OnGradient>
  KOKKOS_FUNCTION void walk(const Run& run, std::int64_t first, std::int64_t last, std::int64_t counted,
                            const OnGradient& on_gradient) {
    A recent[room] = {};  // entry i: X(t - i)
    A q[room] = {};       // entry i: q_(t - i), 0 behind the run
    for (int i = 0; i < room - 1; ++i) {
      if (used(i + 1)) recent[i] = problem.input(run, first - 1 - i, c);
    }
    for (std::int64_t t = first; t < last; ++t) {
      for (int i = room - 1; i > 0; --i) q[i] = q[i - 1];
      q[0] = A(0);
      A gradient = A(0);
      if (t < run.end) {
        for (int i = room - 1; i > 0; --i) recent[i] = recent[i - 1];
        recent[0] = problem.input(run, t, c);
        q[0] = static_cast<A>(problem.dout(run.row, t, c));
        if (problem.silu) q[0] *= tile::silu_derivative(output(recent));
        if (t < counted) add(q[0], recent);
      } else if (!problem.dfinal.absent()) {
        gradient = problem.dfinal(run.state, c, t - run.end);
      }
      // The latest token first, behind the final state: so a run cut in two gives the bits of the whole.
      for (int i = 0; i < room; ++i) {
        if (used(i)) gradient += weight[i] * q[i];
      }
      on_gradient(t - (problem.taps - 1), gradient);
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
          channel.walk(run, t0, t1 + problem.taps - 1, t1, [&](std::int64_t j, A gradient) {
            if (j >= t0) problem.dx(run.row, problem.place(j), c) = static_cast<T>(gradient);
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

/// dX before each run, one thread per run and channel.
template <Scalar T, class Exec>
struct InitialStates {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;
  Tensor<A***, Exec> dinitial;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const Run run = problem.table.runs(item / problem.channels);
    const std::int64_t c = item % problem.channels;
    const int history = problem.taps - 1;
    Channel<T, Exec, 0>(problem, c)
        .walk(run, run.begin, run.begin + history, run.begin,
              [&](std::int64_t j, A gradient) { dinitial(run.state, c, j - run.begin + history) = gradient; });
  }
};

/// No run may own a state.
template <class A, class Exec>
struct ClearStates {
  Tensor<A***, Exec> states;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const auto channels = static_cast<std::int64_t>(states.extent(1));
    for (std::size_t j = 0; j < states.extent(2); ++j) states(item / channels, item % channels, j) = A(0);
  }
};

template <class Exec, class Kernel>
void launch(const Exec& exec, const std::string& label, std::int64_t items, const Kernel& kernel) {
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, items), kernel);
}

template <template <Scalar, class, int> class Kernel, Scalar T, class Exec>
void launch_for_taps(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const auto launch_with = [&](const auto& kernel) { launch(exec, label, kernel.items(), kernel); };
  switch (problem.taps) {
    case 2:
      return launch_with(Kernel<T, Exec, 2>{problem});
    case 3:
      return launch_with(Kernel<T, Exec, 3>{problem});
    case 4:
      return launch_with(Kernel<T, Exec, 4>{problem});
    default:
      return launch_with(Kernel<T, Exec, 0>{problem});
  }
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
  const std::string label =
      impl::operator_label<T>(function_name, impl::is_host_execution<Exec> ? "host_strided" : "device");
  const Kokkos::Profiling::ScopedRegion region(label);
  check(arguments, runs);

  const auto blocks = token_blocks<Exec>(runs.rows(), runs.length());
  const auto channels = static_cast<std::int64_t>(arguments.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(arguments.weight.extent(1));
  impl::PartialSums<A> sums{};
  if (!is_absent(arguments.dweight) || !is_absent(arguments.dbias))
    sums = impl::partial_sums<A, Exec>(function_name, arguments.workspace, blocks, taps + 1, channels);
  const Problem<T, Exec> problem{
      impl::conv_input<T, Exec>(arguments, runs), arguments.dout, arguments.dfinal_states, arguments.dx, blocks, sums};
  launch_for_taps<ChannelKernel>(exec, label, problem);
  if (!is_absent(arguments.dweight))
    impl::add_partial_sums(exec, label + "::dweight", sums, blocks, 0, arguments.dweight);
  if (!is_absent(arguments.dbias))
    impl::add_partial_sums(exec, label + "::dbias", sums, blocks, taps, impl::as_column<A, Exec>(arguments.dbias));
  if (!is_absent(arguments.dinitial_states)) {
    launch(exec, label + "::clear_states", runs.states() * channels, ClearStates<A, Exec>{arguments.dinitial_states});
    launch(exec, label + "::initial_states", static_cast<std::int64_t>(runs.host().size()) * channels,
           InitialStates<T, Exec>{problem, arguments.dinitial_states});
  }
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                               \
  template std::size_t causal_conv1d_backward_workspace_bytes<T, EXEC>(std::int64_t, std::int64_t, std::int64_t, \
                                                                       std::int64_t);                            \
  template void causal_conv1d_backward<T, EXEC>(const EXEC&, const CausalConv1dBackwardArguments<T, EXEC>&,      \
                                                const SequenceRuns&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
