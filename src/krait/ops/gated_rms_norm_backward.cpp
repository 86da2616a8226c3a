// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/gated_rms_norm_backward.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/gated_rms_norm_input.hpp>
#include <krait/ops/partial_sums.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as every kernel sees it. An item is one group of features of one block of tokens.
template <Scalar T, class Exec>
struct Problem : impl::NormInput<T, Exec> {
  using A = accumulator_t<T>;

  Tensor<const A***, Exec> rstd;
  Tensor<const T***, Exec> dout;
  Tensor<T***, Exec> dx;
  Tensor<T***, Exec> dz;
  Tensor<T***, Exec> out;
  impl::TokenBlocks blocks;
  impl::PartialSums<A> sums;  // terms: dweight, dbias

  [[nodiscard]] std::int64_t items() const { return blocks.count * this->groups; }
};

template <class Exec>
impl::TokenBlocks token_blocks(std::int64_t rows, std::int64_t length) {
  return {rows * length, impl::is_host_execution<Exec> ? 32 : 16};
}

/// One team per item, a thread takes N neighbouring features at a time: several lie in packs, a single one at any
/// strides. A thread meets the same features in both sweeps over a group, and the reductions between them end all
/// reading of the first, so dx may be dout. Inputs and sums of its first features stay in registers.
template <Scalar T, class Exec, int N>
struct TeamKernel {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;
  using Member = typename Policy::member_type;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    for (std::int64_t item = team.league_rank(); item < problem.blocks.count * problem.groups;
         item += team.league_size()) {
      const std::int64_t block = item / problem.groups;
      const std::int64_t first = item % problem.groups * problem.group_size;
      const std::int64_t own = std::int64_t{team.team_rank()} * N;
      Sums sums{};
      for (std::int64_t token = problem.blocks.begin(block); token < problem.blocks.end(block); ++token)
        differentiate(team, block, first, token, own, sums);
      if (problem.sums.data != nullptr && own < problem.group_size) {
        tile::store_packs<N>(sums.dweight, problem.sums.row(block, 0) + first + own);
        tile::store_packs<N>(sums.dbias, problem.sums.row(block, 1) + first + own);
      }
    }
  }

 private:
  using Pack = tile::Pack<T, N>;

  /// What a thread has of its features as long as it stays with them.
  struct Sums {
    A dweight[N];
    A dbias[N];
  };
  struct Inputs {
    Pack x;
    Pack z;
    Pack dout;
  };

  /// One feature of one token: what is derived from the inputs before any sum over the group.
  struct Element {
    A gate;             // silu(z), 1 without a gate
    A gate_derivative;  // silu'(z)
    A x;
    A v;  // what is normalised
    A dout;
    A dy;  // gradient of the normalised value after weight and bias
  };

  [[nodiscard]] KOKKOS_FUNCTION Inputs load(std::int64_t row, std::int64_t t, std::int64_t f) const {
    Inputs inputs;
    inputs.x = Pack::load(&problem.x(row, t, f));
    if (problem.gated()) inputs.z = Pack::load(&problem.z(row, t, f));
    inputs.dout = Pack::load(&problem.dout(row, t, f));
    return inputs;
  }

  [[nodiscard]] KOKKOS_FUNCTION Element element(const Inputs& inputs, int n) const {
    Element e{};
    const A z = problem.gated() ? inputs.z[n] : A(0);
    e.gate = problem.gated() ? tile::silu(z) : A(1);
    e.gate_derivative = problem.gated() ? tile::silu_derivative(z) : A(0);
    e.x = inputs.x[n];
    e.v = problem.gate_first ? e.x * e.gate : e.x;
    e.dout = inputs.dout[n];
    e.dy = problem.gate_last ? e.dout * e.gate : e.dout;
    return e;
  }

  /// \param first  feature of the group
  /// \param own    the thread's first, counted from there
  KOKKOS_FUNCTION void differentiate(const Member& team, std::int64_t block, std::int64_t first, std::int64_t token,
                                     std::int64_t own, Sums& sums) const {
    const std::int64_t row = token / problem.length;
    const std::int64_t t = token % problem.length;
    const std::int64_t step = std::int64_t{team.team_size()} * N;
    Inputs kept{};
    if (own < problem.group_size) kept = load(row, t, first + own);
    const auto inputs_at = [&](std::int64_t i) { return i == own ? kept : load(row, t, first + i); };

    A squares = 0;   // of what is normalised
    A products = 0;  // of that with weight dy
    if (problem.normalize) {
      for (std::int64_t i = own; i < problem.group_size; i += step) {
        const Inputs inputs = inputs_at(i);
        A weights[N];
        A biases[N];
        problem.parameters(first + i, weights, biases);
        KRAIT_UNROLLED
        for (int n = 0; n < N; ++n) {
          const Element e = element(inputs, n);
          squares += e.v * e.v;
          products += e.v * weights[n] * e.dy;
        }
      }
      team.team_reduce(Kokkos::Sum<A>(products));
    }
    const A r = reciprocal_root(team, row, t, first, squares);
    const A c = products * r / static_cast<A>(problem.group_size);  // mean of n weight dy over the group
    for (std::int64_t i = own; i < problem.group_size; i += step) {
      const Inputs inputs = inputs_at(i);
      Sums more = store(inputs, row, t, first + i, r, c);
      if (problem.sums.data == nullptr) continue;
      if (i == own) {
        add(more, sums);
      } else {
        A* const dweight = problem.sums.row(block, 0) + first + i;
        A* const dbias = problem.sums.row(block, 1) + first + i;
        if (token != problem.blocks.begin(block)) {
          Sums before;
          tile::load_packs<N>(dweight, before.dweight);
          tile::load_packs<N>(dbias, before.dbias);
          add(before, more);
        }
        tile::store_packs<N>(more.dweight, dweight);
        tile::store_packs<N>(more.dbias, dbias);
      }
    }
  }

  KOKKOS_FUNCTION static void add(const Sums& from, Sums& to) {
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) {
      to.dweight[n] += from.dweight[n];
      to.dbias[n] += from.dbias[n];
    }
  }

  /// Stores the gradients of features from f on, and returns the token's share in those of the parameters.
  KOKKOS_FUNCTION Sums store(const Inputs& inputs, std::int64_t row, std::int64_t t, std::int64_t f, A r, A c) const {
    Sums sums;
    A weights[N];
    A biases[N];
    A dz[N];
    A dx[N];
    A out[N];
    problem.parameters(f, weights, biases);
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) {
      const Element e = element(inputs, n);
      const A normalized = e.v * r;
      const A y = normalized * weights[n] + biases[n];
      const A dv = (weights[n] * e.dy - normalized * c) * r;
      dz[n] = (problem.gate_first ? dv * e.x : e.dout * y) * e.gate_derivative;
      dx[n] = problem.gate_first ? dv * e.gate : dv;
      out[n] = problem.gate_last ? y * e.gate : y;
      sums.dweight[n] = e.dy * normalized;
      sums.dbias[n] = e.dy;
    }
    if (problem.gated()) tile::store_packs<N>(dz, &problem.dz(row, t, f));
    tile::store_packs<N>(dx, &problem.dx(row, t, f));
    if (problem.out.data() != nullptr) tile::store_packs<N>(out, &problem.out(row, t, f));
    return sums;
  }

  [[nodiscard]] KOKKOS_FUNCTION A reciprocal_root(const Member& team, std::int64_t row, std::int64_t t,
                                                  std::int64_t first, A squares) const {
    if (!problem.normalize) return A(1);
    if (problem.rstd.data() != nullptr) return problem.rstd(row, t, first / problem.group_size);
    team.team_reduce(Kokkos::Sum<A>(squares));
    return problem.scale(squares);
  }
};

/// One host thread per item, for features at unit stride; token by token, with the sigmoids of a group kept where they
/// fit.
template <Scalar T, class Exec>
struct HostKernel {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t block = item / problem.groups;
    const std::int64_t group = item % problem.groups;
    const std::int64_t first = group * problem.group_size;
    A* dweight = nullptr;
    A* dbias = nullptr;
    if (problem.sums.data != nullptr) {
      dweight = problem.sums.row(block, 0) + first;
      dbias = problem.sums.row(block, 1) + first;
      for (std::int64_t i = 0; i < problem.group_size; ++i) dweight[i] = dbias[i] = A(0);
    }
    for (std::int64_t token = problem.blocks.begin(block); token < problem.blocks.end(block); ++token)
      differentiate(token / problem.length, token % problem.length, group, dweight, dbias);
  }

 private:
  KOKKOS_FUNCTION void differentiate(std::int64_t row, std::int64_t t, std::int64_t group, A* dweight, A* dbias) const {
    using Group = tile::NormGroup<T, A>;
    const std::int64_t first = group * problem.group_size;
    Group whole = problem.group(row, t, first);
    if (t + 1 < problem.length)
      whole.next = {&problem.x(row, t + 1, first), problem.gated() ? &problem.z(row, t + 1, first) : nullptr,
                    &problem.dout(row, t + 1, first)};
    const T* dout = &problem.dout(row, t, first);
    T* dx = &problem.dx(row, t, first);
    T* dz = problem.gated() ? &problem.dz(row, t, first) : nullptr;
    T* out = problem.out.data() == nullptr ? nullptr : &problem.out(row, t, first);
    A sigmoids[impl::norm_piece];

    tile::NormSums<A> sums{};
    impl::for_norm_pieces(whole, [&](const Group& piece, std::int64_t begin) {
      const tile::NormSums<A> more = tile::norm_gradient_sums(piece, dout + begin, sigmoids);
      sums.squares += more.squares;
      sums.products += more.products;
    });
    const bool stored = problem.normalize && problem.rstd.data() != nullptr;
    const A r = stored ? problem.rstd(row, t, group) : problem.scale(sums.squares);
    const A c = problem.normalize ? sums.products * r / static_cast<A>(problem.group_size) : A(0);
    impl::for_norm_pieces(whole, [&](const Group& piece, std::int64_t begin) {
      if (whole.count > impl::norm_piece) tile::norm_gradient_sums(piece, dout + begin, sigmoids);
      const auto from = [begin](auto* row_of_group) {
        return row_of_group == nullptr ? nullptr : row_of_group + begin;
      };
      tile::norm_gradient(piece, dout + begin, sigmoids, r, c,
                          tile::NormGradients<T, A>{dx + begin, from(dz), from(out), from(dweight), from(dbias)});
    });
  }
};

/// Whether a GPU can take packs of features.
template <Scalar T, class Exec>
bool have_whole_packs(const Problem<T, Exec>& p) {
  return p.has_whole_packs() && tile::has_whole_packs(p.dout) && tile::has_whole_packs(p.dx) &&
         tile::has_whole_packs(p.dz) && tile::has_whole_packs(p.out) && tile::is_aligned(p.sums.data);
}

template <int N, Scalar T, class Exec>
void launch_teams(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const auto league = static_cast<int>(std::min<std::int64_t>(problem.items(), std::int64_t{1} << 20));
  const int threads = tile::team_size_for(exec, impl::norm_team_size(problem.group_size, N));
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, threads), TeamKernel<T, Exec, N>{problem});
}

constexpr const char* function_name = "krait::gated_rms_norm_backward";

template <Scalar T, class Exec>
void check(const GatedRmsNormBackwardArguments<T, Exec>& arguments) {
  const char* name = function_name;
  impl::check_norm_input(name, arguments);
  const auto shape = extents(arguments.x);
  const std::vector<std::int64_t> features(1, shape[2]);
  impl::require_extents(name, "dout", extents(arguments.dout), shape);
  impl::require_extents(name, "dx", extents(arguments.dx), shape);
  KRAIT_REQUIRE(ConfigError, is_absent(arguments.z) == is_absent(arguments.dz), name, ": dz is ",
                is_absent(arguments.dz) ? "absent" : "given", " and z is ", is_absent(arguments.z) ? "absent" : "given",
                ", expected both or neither");
  if (!is_absent(arguments.dz)) impl::require_extents(name, "dz", extents(arguments.dz), shape);
  if (!is_absent(arguments.out)) impl::require_extents(name, "out", extents(arguments.out), shape);
  if (!is_absent(arguments.dweight)) {
    KRAIT_REQUIRE(ConfigError, !is_absent(arguments.weight), name, ": dweight is given, expected it only with weight");
    impl::require_extents(name, "dweight", extents(arguments.dweight), features);
  }
  if (!is_absent(arguments.dbias)) {
    KRAIT_REQUIRE(ConfigError, !is_absent(arguments.bias), name, ": dbias is given, expected it only with bias");
    impl::require_extents(name, "dbias", extents(arguments.dbias), features);
  }
}

}  // namespace

template <Scalar T, class Exec>
std::size_t gated_rms_norm_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t features) {
  return impl::PartialSums<accumulator_t<T>>::bytes(token_blocks<Exec>(rows, length), 2, features);
}

template <Scalar T, class Exec>
void gated_rms_norm_backward(const Exec& exec, const GatedRmsNormBackwardArguments<T, Exec>& arguments) {
  using A = accumulator_t<T>;
  check(arguments);
  if (arguments.x.size() == 0) return;

  const auto blocks = token_blocks<Exec>(static_cast<std::int64_t>(arguments.x.extent(0)),
                                         static_cast<std::int64_t>(arguments.x.extent(1)));
  impl::PartialSums<A> sums{};
  if (!is_absent(arguments.dweight) || !is_absent(arguments.dbias))
    sums = impl::partial_sums<A, Exec>(function_name, arguments.workspace, blocks, 2,
                                       static_cast<std::int64_t>(arguments.x.extent(2)));
  const Problem<T, Exec> problem{impl::norm_input<T, Exec>(arguments),
                                 arguments.rstd,
                                 arguments.dout,
                                 arguments.dx,
                                 arguments.dz,
                                 arguments.out,
                                 blocks,
                                 sums};
  const bool by_rows = tile::works_in_packs<Exec>
                           ? have_whole_packs(problem)
                           : impl::have_unit_features(problem.x, problem.z, problem.weight, problem.bias, problem.dout,
                                                      problem.dx, problem.dz, problem.out);
  const std::string label = impl::operator_label<T>(function_name, impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  if constexpr (tile::works_in_packs<Exec>) {
    if (by_rows)
      launch_teams<tile::pack_size<T>>(exec, label, problem);
    else
      launch_teams<1>(exec, label, problem);
  } else {
    if (by_rows)
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, problem.items()),
                           HostKernel<T, Exec>{problem});
    else
      launch_teams<1>(exec, label, problem);
  }
  if (!is_absent(arguments.dweight))
    impl::add_partial_sums(exec, label + "::dweight", sums, blocks, 0, impl::as_column<A, Exec>(arguments.dweight));
  if (!is_absent(arguments.dbias))
    impl::add_partial_sums(exec, label + "::dbias", sums, blocks, 1, impl::as_column<A, Exec>(arguments.dbias));
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                                 \
  template std::size_t gated_rms_norm_backward_workspace_bytes<T, EXEC>(std::int64_t, std::int64_t, std::int64_t); \
  template void gated_rms_norm_backward<T, EXEC>(const EXEC&, const GatedRmsNormBackwardArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
