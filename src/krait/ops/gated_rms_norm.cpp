// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/gated_rms_norm.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/gated_rms_norm_input.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as both kernels see it. An item is one or several adjacent groups of features of one token.
template <Scalar T, class Exec>
struct Problem : impl::NormInput<T, Exec> {
  Tensor<T***, Exec> out;
  Tensor<accumulator_t<T>***, Exec> rstd;
  std::int64_t item_groups;  ///< most groups of an item

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const {
    return static_cast<std::int64_t>(out.extent(0)) * this->length * items_of_token();
  }

  /// Where an item lies.
  struct Place {
    std::int64_t row;
    std::int64_t token;
    std::int64_t group;   ///< the first
    std::int64_t groups;  ///< how many
    std::int64_t first;   ///< feature
  };
  [[nodiscard]] KOKKOS_FUNCTION Place place(std::int64_t item) const {
    const std::int64_t group = item % items_of_token() * item_groups;
    const std::int64_t token = item / items_of_token();
    const std::int64_t left = this->groups - group;
    return {token / this->length, token % this->length, group, left < item_groups ? left : item_groups,
            group * this->group_size};
  }

 private:
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items_of_token() const {
    return (this->groups + item_groups - 1) / item_groups;
  }
};

/// One team per group, a thread takes N neighbouring features at a time: several lie in packs, a single one at any
/// strides. A thread meets the same features in both sweeps, and the reduction between them ends all reading of the
/// first, so out may be x or z.
template <Scalar T, class Exec, int N>
struct TeamKernel {
  using A = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  static constexpr int kept = 2;  ///< times N features that a thread still has in registers in the second sweep

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    for (std::int64_t item = team.league_rank(); item < problem.items(); item += team.league_size())
      normalize(team, problem.place(item));
  }

 private:
  using Place = typename Problem<T, Exec>::Place;

  KOKKOS_FUNCTION void normalize(const Member& team, const Place& place) const {
    const std::int64_t size = problem.group_size;
    const std::int64_t step = std::int64_t{team.team_size()} * N;
    const std::int64_t begin = std::int64_t{team.team_rank()} * N;  // the thread's first features of the group
    const auto load = [&](std::int64_t i) { return problem.template load<N>(place.row, place.token, place.first + i); };
    typename impl::NormInput<T, Exec>::template Loaded<N> loaded[kept];
    KRAIT_UNROLLED
    for (int k = 0; k < kept; ++k) {
      if (begin + k * step < size) loaded[k] = load(begin + k * step);
    }
    A values[kept][N];
    A others[N];
    A squares = 0;
    const auto add = [&](const A(&v)[N]) {
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) squares += v[n] * v[n];
    };
    KRAIT_UNROLLED
    for (int k = 0; k < kept; ++k) {
      if (begin + k * step >= size) break;
      problem.normalized(loaded[k], values[k]);
      add(values[k]);
    }
    for (std::int64_t i = begin + kept * step; i < size; i += step) {
      problem.normalized(load(i), others);
      add(others);
    }
    if (problem.normalize) team.team_reduce(Kokkos::Sum<A>(squares));
    const A scale = problem.scale(squares);
    KRAIT_UNROLLED
    for (int k = 0; k < kept; ++k) {
      if (begin + k * step < size) store(place, begin + k * step, scale, values[k]);
    }
    for (std::int64_t i = begin + kept * step; i < size; i += step) {
      problem.normalized(load(i), others);
      store(place, i, scale, others);
    }
    if (problem.rstd.data() != nullptr)
      Kokkos::single(Kokkos::PerTeam(team), [&]() { problem.rstd(place.row, place.token, place.group) = scale; });
  }

  /// Features from i of the group on.
  KOKKOS_FUNCTION void store(const Place& place, std::int64_t i, A scale, A (&values)[N]) const {
    const std::int64_t f = place.first + i;
    A weights[N];
    A biases[N];
    problem.parameters(f, weights, biases);
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) values[n] = values[n] * scale * weights[n] + biases[n];
    if (problem.gate_last) {
      A gates[N];
      tile::load_packs<N>(&problem.z(place.row, place.token, f), gates);
      KRAIT_UNROLLED
      for (int n = 0; n < N; ++n) values[n] *= tile::silu(gates[n]);
    }
    tile::store_packs<N>(values, &problem.out(place.row, place.token, f));
  }
};

/// One host thread per item, for features at unit stride. The inputs of a group are gated once and kept where they fit,
/// else read again in the second sweep. Short groups of a token go together.
template <Scalar T, class Exec>
struct HostKernel {
  using A = accumulator_t<T>;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const auto place = problem.place(item);
    tile::NormGroup<T, A> group = problem.group(place.row, place.token, place.first);
    if (place.token + 1 < problem.length)
      group.next = {&problem.x(place.row, place.token + 1, place.first),
                    problem.gated() ? &problem.z(place.row, place.token + 1, place.first) : nullptr, nullptr};
    T* out = &problem.out(place.row, place.token, place.first);
    A values[impl::norm_piece];
    if (place.groups > 1) {
      group.groups = place.groups;
      several_groups(group, place, values, out);
    } else {
      one_group(group, place, values, out);
    }
  }

 private:
  using Place = typename Problem<T, Exec>::Place;

  KOKKOS_FUNCTION void several_groups(const tile::NormGroup<T, A>& groups, const Place& place, A* values,
                                      T* out) const {
    A scales[impl::norm_span];
    tile::norm_load(groups, values, scales);
    for (std::int64_t g = 0; g < groups.groups; ++g) scales[g] = keep_scale(place, g, scales[g]);
    tile::norm_store(groups, scales, values, out);
  }

  KOKKOS_FUNCTION void one_group(const tile::NormGroup<T, A>& group, const Place& place, A* values, T* out) const {
    A squares = 0;
    A part = 0;
    impl::for_norm_pieces(group, [&](const tile::NormGroup<T, A>& piece, std::int64_t) {
      tile::norm_load(piece, values, &part);
      squares += part;
    });
    const A scale = keep_scale(place, 0, squares);
    impl::for_norm_pieces(group, [&](const tile::NormGroup<T, A>& piece, std::int64_t begin) {
      if (group.count > impl::norm_piece) tile::norm_load(piece, values, &part);
      tile::norm_store(piece, &scale, values, out + begin);
    });
  }

  /// The factor of group g of those at the place.
  KOKKOS_FUNCTION A keep_scale(const Place& place, std::int64_t g, A squares) const {
    const A scale = problem.scale(squares);
    if (problem.rstd.data() != nullptr) problem.rstd(place.row, place.token, place.group + g) = scale;
    return scale;
  }
};

template <int N, Scalar T, class Exec>
void launch_teams(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  using Kernel = TeamKernel<T, Exec, N>;
  const auto league = static_cast<int>(std::min<std::int64_t>(problem.items(), std::int64_t{1} << 20));
  const int threads = tile::team_size_for(exec, impl::norm_team_size(problem.group_size, Kernel::kept * N));
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, threads), Kernel{problem});
}

template <Scalar T, class Exec>
void check(const GatedRmsNormArguments<T, Exec>& arguments) {
  const char* name = "krait::gated_rms_norm";
  impl::require_extents(name, "out", extents(arguments.out), extents(arguments.x));
  impl::check_norm_input(name, arguments);
}

}  // namespace

template <Scalar T, class Exec>
void gated_rms_norm(const Exec& exec, const GatedRmsNormArguments<T, Exec>& arguments) {
  using Index = std::int64_t;
  check(arguments);
  if (arguments.x.size() == 0) return;

  const auto input = impl::norm_input<T, Exec>(arguments);
  Problem<T, Exec> problem{input, arguments.out, arguments.rstd, 1};
  const bool by_rows = tile::works_in_packs<Exec>
                           ? problem.has_whole_packs() && tile::has_whole_packs(problem.out)
                           : impl::have_unit_features(problem.x, problem.z, problem.weight, problem.bias, problem.out);
  const std::string label = impl::operator_label<T>("krait::gated_rms_norm", impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  if constexpr (!tile::works_in_packs<Exec>) {
    if (by_rows) {
      problem.item_groups = std::clamp<Index>(impl::norm_span / input.group_size, 1, input.groups);
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<Index>>(exec, 0, problem.items()),
                           HostKernel<T, Exec>{problem});
      return;
    }
  } else {
    if (by_rows) return launch_teams<tile::pack_size<T>>(exec, label, problem);
  }
  launch_teams<1>(exec, label, problem);
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void gated_rms_norm<T, EXEC>(const EXEC&, const GatedRmsNormArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
