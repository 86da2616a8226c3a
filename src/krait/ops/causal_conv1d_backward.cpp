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

/// The recurrence along N neighbouring channels of one run: several lie in packs, a single one at any strides. Token t
/// brings q_t, and with it dX(t - (taps - 1)) is complete. Taps == 0: their number is known at run time only. Then
/// entries beyond it are not used, but every index is still known to the compiler, so that all of this stays in
/// registers.
template <Scalar T, class Exec, int Taps, int N>
struct Channels {
  using A = accumulator_t<T>;
  using Pack = tile::Pack<T, N>;
  static constexpr int room = Taps == 0 ? tile::max_conv_taps : Taps;
  static constexpr int ahead = Taps == 0 ? 1 : 4;  // tokens that are loaded before the first of them is worked on
  using Window = A[room][N];                       // entry i: of token t - i

  const Problem<T, Exec>& problem;
  std::int64_t c;
  A bias[N];
  A weight[room][N] = {};   // entry i: tap i, which brings q_(j + taps-1 - i) to dX(j)
  A delayed[room][N] = {};  // entry i: the tap that brings X(t - i) to o_t
  A dbias[N] = {};
  A dweight[room][N] = {};  // entry i: gradient of delayed[i]

  KOKKOS_FUNCTION Channels(const Problem<T, Exec>& p, std::int64_t channel) : problem(p), c(channel) {
    if constexpr (Taps == 0) {
      static_assert(N == 1);
      bias[0] = p.bias_of(c);
      for (int i = 0; i < room; ++i) {
        if (used(i)) weight[i][0] = p.weight(c, i);
        if (used(i)) delayed[i][0] = p.weight(c, p.taps - 1 - i);
      }
    } else {
      p.parameters(c, weight, bias);
      KRAIT_UNROLLED
      for (int i = 0; i < room; ++i) {
        KRAIT_UNROLLED
        for (int n = 0; n < N; ++n) delayed[i][n] = weight[Taps - 1 - i][n];
      }
    }
  }

  [[nodiscard]] KOKKOS_FUNCTION bool used(int i) const { return Taps != 0 || i < problem.taps; }

  /// Tokens [first, last) of the run: their share in the gradients of the parameters, on_gradient(j, dX(j)) for them,
  /// and before(j, dX(j)) for the places before them, where dX(j) has no share of earlier tokens. The tokens that
  /// follow are visited too; behind the run comes the gradient of its final state.
  template <class OnGradient, class Before>
  KOKKOS_FUNCTION void walk(const Run& run, std::int64_t first, std::int64_t last, const OnGradient& on_gradient,
                            const Before& before) {
    const int history = problem.history();
    const std::int64_t reach = last + history;
    const std::int64_t end = run.end < reach ? run.end : reach;
    Window recent = {};  // X
    Window q = {};       // 0 behind the run
    KRAIT_ROLLED
    for (int w = -history; w < 0; ++w) {
      age(recent);
      problem.inputs(run, first + w, c, recent[0]);
    }
    const auto load = [&](const auto& view, std::int64_t place) { return Pack::load(&view(run.row, place, c)); };
    A gradient[N];
    std::int64_t t = first;
    KRAIT_ROLLED
    for (; t < end && t < first + history; ++t) {
      add_token(load(problem.x, problem.place(t)), load(problem.dout, t), t < last, recent, q, gradient);
      before(t - history, gradient);
    }
    for (; t < end; t += ahead) {
      Pack x[ahead];
      Pack dout[ahead];
      KRAIT_UNROLLED
      for (int i = 0; i < ahead; ++i) {
        if (t + i < end) x[i] = load(problem.x, problem.place(t + i));
        if (t + i < end) dout[i] = load(problem.dout, t + i);
      }
      KRAIT_UNROLLED
      for (int i = 0; i < ahead; ++i) {
        if (t + i >= end) break;
        add_token(x[i], dout[i], t + i < last, recent, q, gradient);
        on_gradient(t + i - history, gradient);
      }
    }
    KRAIT_ROLLED
    for (t = end; t < reach; ++t) {
      age(q);
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) {
        q[0][n] = A(0);
        gradient[n] = problem.dfinal.absent() || !run.has_state() ? A(0) : problem.dfinal(run.state, c + n, t - end);
      }
      gather(q, gradient);
      if (t - history >= first)
        on_gradient(t - history, gradient);
      else
        before(t - history, gradient);
    }
  }

 private:
  KOKKOS_FUNCTION static void age(Window& window) {
    KRAIT_UNROLLED
    for (int i = room - 1; i > 0; --i) {
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) window[i][n] = window[i - 1][n];
    }
  }

  /// Goes on to a token.
  KOKKOS_FUNCTION void add_token(const Pack& x, const Pack& dout, bool counted, Window& recent, Window& q,
                                 A (&gradient)[N]) {
    age(recent);
    age(q);
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) {
      recent[0][n] = x[n];
      q[0][n] = dout[n];
      if (problem.silu) q[0][n] *= tile::silu_derivative(output(recent, n));
      if (counted) add(q[0][n], recent, n);
      gradient[n] = A(0);
    }
    gather(q, gradient);
  }

  /// Adds what the tokens of q bring. The latest first, behind the final state: so a run cut in two gives the bits of
  /// the whole.
  KOKKOS_FUNCTION void gather(const Window& q, A (&gradient)[N]) const {
    KRAIT_UNROLLED
    for (int i = 0; i < room; ++i) {
      if (!used(i)) continue;
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) gradient[n] += weight[i][n] * q[i][n];
    }
  }

  /// o_t as in the forward: taps in ascending order.
  [[nodiscard]] KOKKOS_FUNCTION A output(const Window& recent, int n) const {
    A sum = bias[n];
    KRAIT_UNROLLED
    for (int i = room - 1; i >= 0; --i) {
      if (used(i)) sum += delayed[i][n] * recent[i][n];
    }
    return sum;
  }

  KOKKOS_FUNCTION void add(A q, const Window& recent, int n) {
    dbias[n] += q;
    KRAIT_UNROLLED
    for (int i = 0; i < room; ++i) {
      if (used(i)) dweight[i][n] += q * recent[i][n];
    }
  }
};

/// One thread per block of tokens and N channels. Neighbouring threads take neighbouring channels. The q of the taps -
/// 1 tokens behind the block are formed a second time by the next block.
template <Scalar T, class Exec, int Taps, int N>
struct ChannelKernel {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t columns() const { return problem.channels / N; }
  [[nodiscard]] std::int64_t items() const { return problem.blocks.count * columns(); }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t c = item % columns() * N;
    const std::int64_t block = item / columns();
    Channels<T, Exec, Taps, N> channels(problem, c);
    problem.walk(
        problem.blocks.begin(block), problem.blocks.end(block),
        [&](const Run& run, std::int64_t t0, std::int64_t t1) {
          channels.walk(
              run, t0, t1,
              [&](std::int64_t j, const A(&gradient)[N]) {
                tile::store_packs<N>(gradient, &problem.dx(run.row, problem.place(j), c));
              },
              [&](std::int64_t j, const A(&gradient)[N]) {
                if (!problem.reaches_initial(run, t0)) return;
                for (int n = 0; n < N; ++n)
                  problem.dinitial(run.state, c + n, j - t0 + problem.history()) = gradient[n];
              });
        },
        [&](std::int64_t row, std::int64_t t0, std::int64_t t1) {
          constexpr A zeros[N] = {};
          for (std::int64_t t = t0; t < t1; ++t) tile::store_packs<N>(zeros, &problem.dx(row, problem.place(t), c));
        });
    if (problem.sums.data == nullptr) return;
    KRAIT_UNROLLED
    for (int i = 0; i < channels.room; ++i) {
      if (channels.used(i))
        tile::store_packs<N>(channels.dweight[i], problem.sums.row(block, problem.taps - 1 - i) + c);
    }
    tile::store_packs<N>(channels.dbias, problem.sums.row(block, problem.taps) + c);
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

/// The kernel for N neighbouring channels a thread.
template <int N, Scalar T, class Exec>
void launch_by_channels(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const auto launch_kernel = [&](const auto& kernel) { launch(exec, label, kernel.items(), kernel); };
  switch (problem.taps) {
    case 2:
      return launch_kernel(ChannelKernel<T, Exec, 2, N>{problem});
    case 3:
      return launch_kernel(ChannelKernel<T, Exec, 3, N>{problem});
    case 4:
      return launch_kernel(ChannelKernel<T, Exec, 4, N>{problem});
    default:
      return launch_kernel(ChannelKernel<T, Exec, 0, 1>{problem});
  }
}

/// Whether a host can take rows of channels, or a GPU packs of them.
template <Scalar T, class Exec>
bool has_fast_rows(const Problem<T, Exec>& p) {
  if (!tile::works_in_packs<Exec>) return p.x.stride(2) == 1 && p.dout.stride(2) == 1 && p.dx.stride(2) == 1;
  return 2 <= p.taps && p.taps <= 4 && p.has_whole_packs() && tile::has_whole_packs(p.dout) &&
         tile::has_whole_packs(p.dx) && tile::is_aligned(p.sums.data);
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
  const bool by_rows = has_fast_rows(problem);
  const std::string label = impl::operator_label<T>(function_name, impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  if (!is_absent(arguments.dinitial_states)) {
    launch(exec, label + "::clear_states", runs.states() * channels, ClearStates<T, Exec>{problem});
    if (!arguments.dfinal_states.absent())
      launch(exec, label + "::empty_runs", static_cast<std::int64_t>(runs.host().size()) * channels,
             PassStatesOfEmptyRuns<T, Exec>{problem});
  }
  if constexpr (tile::works_in_packs<Exec>) {
    // What a thread keeps are accumulators: those of more channels would not fit its registers.
    if (by_rows)
      launch_by_channels<tile::pack_size<A>>(exec, label, problem);
    else
      launch_by_channels<1>(exec, label, problem);
  } else {
    if (by_rows && taps <= 4)
      launch_by_rows<4>(exec, label, problem);
    else if (by_rows)
      launch_by_rows<tile::max_conv_taps>(exec, label, problem);
    else
      launch_by_channels<1>(exec, label, problem);
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
