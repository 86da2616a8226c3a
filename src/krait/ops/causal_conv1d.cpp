// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/causal_conv1d.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <string>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/causal_conv1d_input.hpp>
#include <krait/ops/causal_conv1d_strip.hpp>
#include <krait/ops/checks.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as every kernel sees it.
template <Scalar T, class Exec>
struct Problem : impl::ConvInput<T, Exec> {
  Tensor<T***, Exec> out;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t tokens() const {
    return static_cast<std::int64_t>(out.extent(0)) * this->length;
  }
};

/// One thread per block of tokens and N neighbouring channels, of which several lie in packs; a single one at any
/// strides. Taps == 0: their number is known at run time only. Neighbouring threads take neighbouring channels.
template <Scalar T, class Exec, int Taps, int N>
struct ChannelKernel {
  using A = accumulator_t<T>;
  static constexpr std::int64_t block = impl::conv_block<Exec>;

  Problem<T, Exec> problem;
  std::int64_t columns;  // of threads
  std::int64_t blocks;

  explicit ChannelKernel(const Problem<T, Exec>& p)
      : problem(p), columns(p.channels / N), blocks((p.tokens() + block - 1) / block) {}

  [[nodiscard]] std::int64_t items() const { return blocks * columns; }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t c = item % columns * N;
    const std::int64_t first = item / columns * block;
    const std::int64_t last = first + block < problem.tokens() ? first + block : problem.tokens();
    problem.walk(
        first, last,
        [&](const Run& run, std::int64_t t0, std::int64_t t1) {
          if constexpr (Taps == 0)
            any_taps(run, t0, t1, c);
          else
            fixed_taps(run, t0, t1, c);
        },
        [&](std::int64_t row, std::int64_t t0, std::int64_t t1) {
          constexpr A zeros[N] = {};
          for (std::int64_t t = t0; t < t1; ++t) tile::store_packs<N>(zeros, &problem.out(row, t, c));
        });
  }

 private:
  KOKKOS_FUNCTION void store(std::int64_t row, std::int64_t t, std::int64_t c, A (&sums)[N]) const {
    if (problem.silu) {
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) sums[n] = tile::silu(sums[n]);
    }
    tile::store_packs<N>(sums, &problem.out(row, t, c));
  }

  KOKKOS_FUNCTION static void forget_oldest(A (&recent)[Taps][N]) {
    KRAIT_UNROLLED
    for (int w = 0; w + 1 < Taps; ++w) {
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) recent[w][n] = recent[w + 1][n];
    }
  }

  /// Weights and the last inputs stay in registers: the loops over taps unroll and no index is left to run time. That
  /// over the history does not, as there is much code behind an input that may come from a state.
  KOKKOS_FUNCTION void fixed_taps(const Run& run, std::int64_t t0, std::int64_t t1, std::int64_t c) const {
    constexpr int history = Taps - 1;
    A weight[Taps][N];
    A bias[N];
    A recent[Taps][N] = {};
    problem.parameters(c, weight, bias);
    KRAIT_ROLLED
    for (int w = 0; w < history; ++w) {
      problem.inputs_before(run, t0, w, c, recent[history]);
      forget_oldest(recent);
    }
    constexpr int ahead = 4;  // tokens that are loaded before the first of them is worked on
    for (std::int64_t t = t0; t < t1; t += ahead) {
      tile::Pack<T, N> x[ahead];
      KRAIT_UNROLLED
      for (int i = 0; i < ahead; ++i) {
        if (t + i < t1) x[i] = tile::Pack<T, N>::load(&problem.x(run.row, problem.place(t + i), c));
      }
      KRAIT_UNROLLED
      for (int i = 0; i < ahead; ++i) {
        if (t + i >= t1) break;
        A sums[N];
        KRAIT_UNROLLED
        for (int n = 0; n < N; ++n) {
          recent[history][n] = x[i][n];
          sums[n] = bias[n];
          KRAIT_UNROLLED
          for (int w = 0; w < Taps; ++w) sums[n] += weight[w][n] * recent[w][n];
        }
        forget_oldest(recent);
        store(run.row, t + i, c, sums);
      }
    }
  }

  KOKKOS_FUNCTION void any_taps(const Run& run, std::int64_t t0, std::int64_t t1, std::int64_t c) const {
    static_assert(N == 1);
    const A bias = problem.bias_of(c);
    const int before = problem.taps - 1;
    // Backwards: what is stored may take the place of an input that only the tokens behind have needed.
    for (std::int64_t t = t1 - 1; t >= t0; --t) {
      A sums[N] = {bias};
      for (int w = 0; w <= before; ++w) {
        const std::int64_t token = t - before + w;
        sums[0] +=
            problem.weight(c, w) * (token < t0 ? problem.input_before(run, t0, static_cast<int>(token - t0) + before, c)
                                               : problem.input(run, token, c));
      }
      store(run.row, t, c, sums);
    }
  }
};

/// One host thread per block of tokens and strip of channels at unit stride, token by token.
template <Scalar T, class Exec, int Taps>
struct HostKernel {
  using A = accumulator_t<T>;
  static constexpr std::int64_t block = impl::conv_block<Exec>;

  Problem<T, Exec> problem;
  std::int64_t strips;
  bool past_cache;

  explicit HostKernel(const Problem<T, Exec>& p)
      : problem(p),
        strips(impl::conv_strips<A, Taps>(p.channels)),
        past_cache(!p.in_place() && impl::goes_past_cache(p.out)) {}

  [[nodiscard]] std::int64_t items() const { return (problem.tokens() + block - 1) / block * strips; }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    impl::ConvStripInput<T, Exec, Taps> input(problem, item % strips, past_cache);
    const tile::ConvStrip<A> strip = input.strip();
    const std::int64_t first = item / strips * block;
    const std::int64_t last = first + block < problem.tokens() ? first + block : problem.tokens();
    problem.walk(
        first, last,
        [&](const Run& run, std::int64_t t0, std::int64_t t1) {
          input.enter(run, t0);
          for (std::int64_t t = t0; t < t1; t += impl::conv_tokens_at_once) {
            const auto count =
                static_cast<int>(t1 - t < impl::conv_tokens_at_once ? t1 - t : impl::conv_tokens_at_once);
            const int next = impl::conv_next(t1 - t, count);
            const T* x[impl::conv_tokens_at_once + impl::conv_tokens_next];
            T* out[impl::conv_tokens_at_once];
            for (int i = 0; i < count + next; ++i) x[i] = input.placed_row(problem.x, run.row, t + i);
            for (int i = 0; i < count; ++i) out[i] = input.row(problem.out, run.row, t + i);
            tile::conv_rows(strip, tile::ConvTokens<T, A>{count, next, x, input.history[0]}, out);
          }
        },
        [&](std::int64_t row, std::int64_t t0, std::int64_t t1) {
          for (std::int64_t t = t0; t < t1; ++t) input.clear(input.row(problem.out, row, t));
        });
  }
};

/// The inputs before each block of tokens but the first, before outputs take their place. On a host one thread per row
/// of channels.
template <Scalar T, class Exec>
struct InputsBeforeBlocks {
  Problem<T, Exec> problem;

  /// Rows of channels, or on a device their elements.
  [[nodiscard]] std::int64_t items() const {
    return static_cast<std::int64_t>(impl::is_host_execution<Exec>
                                         ? problem.before_blocks.extent(0) * problem.before_blocks.extent(1)
                                         : problem.before_blocks.size());
  }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    if constexpr (impl::is_host_execution<Exec>) {
      for (std::int64_t c = 0; c < problem.channels; ++c) keep(item, c);
    } else {
      keep(item / problem.channels, item % problem.channels);
    }
  }

 private:
  KOKKOS_FUNCTION void keep(std::int64_t row_of_channels, std::int64_t c) const {
    const std::int64_t block = row_of_channels / (problem.taps - 1);
    const std::int64_t w = row_of_channels % (problem.taps - 1);
    const std::int64_t row = block * impl::conv_block<Exec> / problem.length;
    const std::int64_t t = block * impl::conv_block<Exec> % problem.length - (problem.taps - 1) + w;
    if (t >= 0) problem.before_blocks(block, w, c) = problem.x(row, t, c);  // of another row nobody asks
  }
};

/// The last taps - 1 entries of [initial | run], one thread per run and channel. Entry j is read at or behind j of the
/// initial state and the entries go in ascending order, so both states may be the same memory.
template <Scalar T, class Exec>
struct FinalStates {
  Problem<T, Exec> problem;
  Tensor<T***, Exec> final_states;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const Run run = problem.table.runs(item / problem.channels);
    if (!run.has_state()) return;
    const std::int64_t c = item % problem.channels;
    for (int j = 0; j < problem.taps - 1; ++j)
      final_states(run.state, c, j) = static_cast<T>(problem.input(run, run.end - (problem.taps - 1) + j, c));
  }
};

template <class Exec, class Kernel>
void launch(const Exec& exec, const std::string& label, const Kernel& kernel) {
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, kernel.items()),
                       kernel);
}

/// The kernel for N neighbouring channels a thread.
template <int N, Scalar T, class Exec>
void launch_by_channels(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  switch (problem.taps) {
    case 2:
      return launch(exec, label, ChannelKernel<T, Exec, 2, N>(problem));
    case 3:
      return launch(exec, label, ChannelKernel<T, Exec, 3, N>(problem));
    case 4:
      return launch(exec, label, ChannelKernel<T, Exec, 4, N>(problem));
    default:
      return launch(exec, label, ChannelKernel<T, Exec, 0, 1>(problem));
  }
}

/// Whether a host can take rows of channels, or a GPU packs of them.
template <Scalar T, class Exec>
bool has_fast_rows(const Problem<T, Exec>& problem) {
  if (!tile::works_in_packs<Exec>) return problem.x.stride(2) == 1 && problem.out.stride(2) == 1;
  return 2 <= problem.taps && problem.taps <= 4 && problem.has_whole_packs() && tile::has_whole_packs(problem.out);
}

template <class Exec>
std::int64_t blocks_of(std::int64_t tokens) {
  return (tokens + impl::conv_block<Exec> - 1) / impl::conv_block<Exec>;
}

template <Scalar T, class Exec>
bool is_in_place(const CausalConv1dArguments<T, Exec>& arguments) {
  return arguments.x.size() > 0 && arguments.out.data() == arguments.x.data();
}

template <Scalar T, class Exec>
void check(const CausalConv1dArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  const char* name = "krait::causal_conv1d";
  impl::check_conv_input(name, arguments, runs);
  const auto channels = static_cast<std::int64_t>(arguments.weight.extent(0));
  const auto taps = static_cast<std::int64_t>(arguments.weight.extent(1));
  impl::require_extents(name, "out", extents(arguments.out), {runs.rows(), runs.length(), channels});
  if (!is_absent(arguments.final_states))
    impl::require_extents(name, "final_states", extents(arguments.final_states), {runs.states(), channels, taps - 1});
  if (!is_in_place(arguments)) return;
  for (std::size_t r = 0; r < 3; ++r) {
    KRAIT_REQUIRE(ShapeError, arguments.out.extent(r) <= 1 || arguments.out.stride(r) == arguments.x.stride(r), name,
                  ": out takes the place of x, but its stride ", r, " is ", arguments.out.stride(r), ", expected ",
                  arguments.x.stride(r));
  }
  KRAIT_REQUIRE(ConfigError, is_absent(arguments.x_map), name, ": out takes the place of x, but x_map is given");
  KRAIT_REQUIRE(ConfigError,
                is_absent(arguments.final_states) || !arguments.initial_states.begins_at(arguments.final_states.data()),
                name, ": out takes the place of x, but initial_states and final_states share memory");
  const std::size_t bytes = causal_conv1d_workspace_bytes<T, Exec>(runs.rows(), runs.length(), channels, taps);
  KRAIT_REQUIRE(CapacityError, arguments.workspace.extent(0) >= bytes, name,
                ": out takes the place of x, but workspace has ", arguments.workspace.extent(0), " bytes, ", bytes,
                " are needed");
}

template <Scalar T, class Exec>
void store_final_states(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem,
                        const Tensor<T***, Exec>& final_states, const SequenceRuns& runs) {
  if (is_absent(final_states)) return;
  const auto items = static_cast<std::int64_t>(runs.host().size()) * problem.channels;
  Kokkos::parallel_for(label + "::final_states",
                       Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, items),
                       FinalStates<T, Exec>{problem, final_states});
}

}  // namespace

template <Scalar T, class Exec>
std::size_t causal_conv1d_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t channels,
                                          std::int64_t taps) {
  return static_cast<std::size_t>(blocks_of<Exec>(rows * length) * (taps - 1) * channels) * sizeof(T);
}

template <Scalar T, class Exec>
void causal_conv1d(const Exec& exec, const CausalConv1dArguments<T, Exec>& arguments, const SequenceRuns& runs) {
  check(arguments, runs);
  Problem<T, Exec> problem{impl::conv_input<T, Exec>(arguments, runs), arguments.out};
  const bool by_rows = has_fast_rows(problem);
  const std::string label = impl::operator_label<T>("krait::causal_conv1d", impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);

  if (is_in_place(arguments) && problem.taps > 1) {
    problem.before_blocks =
        make_tensor<T***, Exec, 3>(reinterpret_cast<T*>(arguments.workspace.data()),
                                   {blocks_of<Exec>(problem.tokens()), problem.taps - 1, problem.channels});
    launch(exec, label + "::inputs_before_blocks", InputsBeforeBlocks<T, Exec>{problem});
    store_final_states(exec, label, problem, arguments.final_states, runs);
  }
  if constexpr (tile::works_in_packs<Exec>) {
    if (by_rows)
      launch_by_channels<tile::pack_size<T>>(exec, label, problem);
    else
      launch_by_channels<1>(exec, label, problem);
  } else {
    if (by_rows && problem.taps <= 4)
      launch(exec, label, HostKernel<T, Exec, 4>(problem));
    else if (by_rows)
      launch(exec, label, HostKernel<T, Exec, tile::max_conv_taps>(problem));
    else
      launch_by_channels<1>(exec, label, problem);
  }
  if (!problem.in_place()) store_final_states(exec, label, problem, arguments.final_states, runs);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                               \
  template void causal_conv1d<T, EXEC>(const EXEC&, const CausalConv1dArguments<T, EXEC>&, const SequenceRuns&); \
  template std::size_t causal_conv1d_workspace_bytes<T, EXEC>(std::int64_t, std::int64_t, std::int64_t, std::int64_t);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
