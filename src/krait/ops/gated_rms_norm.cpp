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

/// One team per group; any strides. A thread meets the same features in both sweeps, and the reduction between them
/// ends all reading of the first, so out may be x.
template <Scalar T, class Exec>
struct TeamKernel {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(const typename Policy::member_type& team) const {
    for (std::int64_t item = team.league_rank(); item < problem.items(); item += team.league_size()) {
      const auto place = problem.place(item);
      A squares = 0;
      if (problem.normalize) {
        Kokkos::parallel_reduce(
            Kokkos::TeamThreadRange(team, problem.group_size),
            [&](std::int64_t i, A& sum) {
              const A v = problem.normalized(place.row, place.token, place.first + i);
              sum += v * v;
            },
            squares);
      }
      const A scale = problem.scale(squares);
      Kokkos::parallel_for(Kokkos::TeamThreadRange(team, problem.group_size), [&](std::int64_t i) {
        const std::int64_t f = place.first + i;
        A value = problem.normalized(place.row, place.token, f) * scale * problem.weight_of(f) + problem.bias_of(f);
        if (problem.gate_last) value *= tile::silu(static_cast<A>(problem.z(place.row, place.token, f)));
        problem.out(place.row, place.token, f) = static_cast<T>(value);
      });
      if (problem.rstd.data() != nullptr)
        Kokkos::single(Kokkos::PerTeam(team), [&]() { problem.rstd(place.row, place.token, place.group) = scale; });
    }
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
  const bool by_rows =
      impl::is_host_execution<Exec> &&
      impl::have_unit_features(arguments.x, arguments.z, arguments.weight, arguments.bias, arguments.out);
  const std::string label = impl::operator_label<T>("krait::gated_rms_norm", impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  check(arguments);
  if (arguments.x.size() == 0) return;

  const auto input = impl::norm_input<T, Exec>(arguments);
  Problem<T, Exec> problem{input, arguments.out, arguments.rstd, 1};
  if constexpr (impl::is_host_execution<Exec>) {
    if (by_rows) {
      problem.item_groups = std::clamp<Index>(impl::norm_span / input.group_size, 1, input.groups);
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<Index>>(exec, 0, problem.items()),
                           HostKernel<T, Exec>{problem});
      return;
    }
  }
  constexpr int team_size = impl::is_host_execution<Exec> ? 1 : 128;
  const auto league = static_cast<int>(std::min<Index>(problem.items(), Index(1) << 20));
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, team_size), TeamKernel<T, Exec>{problem});
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void gated_rms_norm<T, EXEC>(const EXEC&, const GatedRmsNormArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
