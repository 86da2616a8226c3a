// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/gated_rms_norm.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// The call, as both kernels see it. An item is one group of features of one token.
template <Scalar T, class Exec>
struct Problem {
  using A = accumulator_t<T>;

  Tensor<const T***, Exec> x;
  Tensor<const T***, Exec> z;
  Tensor<const A*, Exec> weight;
  Tensor<const A*, Exec> bias;
  Tensor<T***, Exec> out;
  std::int64_t group_size;
  std::int64_t groups;
  std::int64_t items;
  bool gate_first;
  bool gate_last;
  bool normalize;
  A epsilon;

  [[nodiscard]] KOKKOS_FUNCTION A scale(A sum_of_squares) const {
    return normalize ? A(1) / Kokkos::sqrt(sum_of_squares / static_cast<A>(group_size) + epsilon) : A(1);
  }
};

/// One team per item; any strides. A thread meets the same features in both sweeps, and the reduction between them
/// ends all reading of the first, so out may be x.
template <Scalar T, class Exec>
struct TeamKernel {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(const typename Policy::member_type& team) const {
    const auto length = static_cast<std::int64_t>(problem.x.extent(1));
    for (std::int64_t item = team.league_rank(); item < problem.items; item += team.league_size()) {
      const std::int64_t first = item % problem.groups * problem.group_size;
      const std::int64_t token = item / problem.groups % length;
      const std::int64_t row = item / problem.groups / length;
      A squares = 0;
      if (problem.normalize) {
        Kokkos::parallel_reduce(
            Kokkos::TeamThreadRange(team, problem.group_size),
            [&](std::int64_t i, A& sum) {
              const A v = input(row, token, first + i);
              sum += v * v;
            },
            squares);
      }
      const A scale = problem.scale(squares);
      Kokkos::parallel_for(Kokkos::TeamThreadRange(team, problem.group_size), [&](std::int64_t i) {
        const std::int64_t f = first + i;
        A value = input(row, token, f) * scale;
        if (problem.weight.data() != nullptr) value *= problem.weight(f);
        if (problem.bias.data() != nullptr) value += problem.bias(f);
        if (problem.gate_last) value *= tile::silu(static_cast<A>(problem.z(row, token, f)));
        problem.out(row, token, f) = static_cast<T>(value);
      });
    }
  }

  [[nodiscard]] KOKKOS_FUNCTION A input(std::int64_t row, std::int64_t token, std::int64_t f) const {
    const auto v = static_cast<A>(problem.x(row, token, f));
    return problem.gate_first ? v * tile::silu(static_cast<A>(problem.z(row, token, f))) : v;
  }
};

/// One host thread per item, for features at unit stride: plain loops over vectors of features. The inputs of a group
/// are gated once and kept where they fit, else read again in the second sweep.
template <Scalar T, class Exec>
struct HostKernel {
  using A = accumulator_t<T>;
  static constexpr std::int64_t block = 8192;
  static constexpr int lanes = 16;  // partial sums that run side by side, so that the order is fixed and vectors fit

  Problem<T, Exec> problem;

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const auto length = static_cast<std::int64_t>(problem.x.extent(1));
    const std::int64_t first = item % problem.groups * problem.group_size;
    const std::int64_t token = item / problem.groups % length;
    const std::int64_t row = item / problem.groups / length;
    const T* x = &problem.x(row, token, first);
    const T* z = problem.z.data() == nullptr ? x : &problem.z(row, token, first);  // without a gate z is not read
    T* out = &problem.out(row, token, first);
    A values[block];

    A partial[lanes] = {};
    for (std::int64_t begin = 0; begin < problem.group_size; begin += block) {
      const std::int64_t count = count_from(begin);
      load(x + begin, z + begin, count, values);
      add_squares(values, count, partial);
    }
    A squares = 0;
    for (const A sum : partial) squares += sum;
    const A scale = problem.scale(squares);
    for (std::int64_t begin = 0; begin < problem.group_size; begin += block) {
      const std::int64_t count = count_from(begin);
      if (problem.group_size > block) load(x + begin, z + begin, count, values);
      finish(first + begin, scale, z + begin, count, values);
      for (std::int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<T>(values[i]);
    }
  }

 private:
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t count_from(std::int64_t begin) const {
    return problem.group_size - begin < block ? problem.group_size - begin : block;
  }

  KOKKOS_FUNCTION void load(const T* x, const T* z, std::int64_t count, A* values) const {
    if (problem.gate_first) {
      for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<A>(x[i]) * tile::silu(static_cast<A>(z[i]));
    } else {
      for (std::int64_t i = 0; i < count; ++i) values[i] = static_cast<A>(x[i]);
    }
  }

  KOKKOS_FUNCTION void add_squares(const A* values, std::int64_t count, A* partial) const {
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      for (int lane = 0; lane < lanes; ++lane) partial[lane] += values[i + lane] * values[i + lane];
    }
    for (int lane = 0; i + lane < count; ++lane) partial[lane] += values[i + lane] * values[i + lane];
  }

  KOKKOS_FUNCTION void finish(std::int64_t first, A scale, const T* z, std::int64_t count, A* values) const {
    for (std::int64_t i = 0; i < count; ++i) values[i] *= scale;
    if (problem.weight.data() != nullptr) {
      for (std::int64_t i = 0; i < count; ++i) values[i] *= problem.weight(first + i);
    }
    if (problem.bias.data() != nullptr) {
      for (std::int64_t i = 0; i < count; ++i) values[i] += problem.bias(first + i);
    }
    if (problem.gate_last) {
      for (std::int64_t i = 0; i < count; ++i) values[i] *= tile::silu(static_cast<A>(z[i]));
    }
  }
};

template <Scalar T, class Exec>
void check(const GatedRmsNormArguments<T, Exec>& arguments, std::int64_t group_size) {
  const char* name = "krait::gated_rms_norm";
  const auto features = static_cast<std::int64_t>(arguments.x.extent(2));
  impl::require_extents(name, "out", extents(arguments.out), extents(arguments.x));
  if (!is_absent(arguments.z)) impl::require_extents(name, "z", extents(arguments.z), extents(arguments.x));
  if (!is_absent(arguments.weight)) impl::require_extents(name, "weight", extents(arguments.weight), {features});
  if (!is_absent(arguments.bias)) impl::require_extents(name, "bias", extents(arguments.bias), {features});
  KRAIT_REQUIRE(ConfigError, !arguments.normalize || !is_absent(arguments.weight) || features == 0, name,
                ": weight is absent, expected one of extent ", features, " or normalize == false");
  KRAIT_REQUIRE(ConfigError, arguments.group_size >= 0 && (features == 0 || features % group_size == 0), name,
                ": group_size is ", arguments.group_size, ", expected a divisor of the ", features, " features");
  KRAIT_REQUIRE(ConfigError, arguments.epsilon >= 0, name, ": epsilon is ", arguments.epsilon, ", expected at least 0");
}

template <class View>
bool has_unit_features(const View& view) {
  return is_absent(view) || view.stride(2) == 1;
}

}  // namespace

template <Scalar T, class Exec>
void gated_rms_norm(const Exec& exec, const GatedRmsNormArguments<T, Exec>& arguments) {
  using Index = std::int64_t;
  const bool unit = impl::is_host_execution<Exec> && has_unit_features(arguments.x) && has_unit_features(arguments.z) &&
                    has_unit_features(arguments.out);
  const std::string label = impl::operator_label<T>(
      "krait::gated_rms_norm", unit ? "host" : (impl::is_host_execution<Exec> ? "host_strided" : "device"));
  const Kokkos::Profiling::ScopedRegion region(label);
  const auto features = static_cast<Index>(arguments.x.extent(2));
  const Index group_size = arguments.group_size == 0 ? features : arguments.group_size;
  check(arguments, group_size);
  if (arguments.x.size() == 0) return;

  const bool gate = !is_absent(arguments.z);
  const Index groups = features / group_size;
  const Index items = static_cast<Index>(arguments.x.extent(0)) * static_cast<Index>(arguments.x.extent(1)) * groups;
  const Problem<T, Exec> problem{arguments.x,
                                 arguments.z,
                                 arguments.weight,
                                 arguments.bias,
                                 arguments.out,
                                 group_size,
                                 groups,
                                 items,
                                 gate && !arguments.norm_before_gate,
                                 gate && arguments.norm_before_gate,
                                 arguments.normalize,
                                 static_cast<accumulator_t<T>>(arguments.epsilon)};
  if constexpr (impl::is_host_execution<Exec>) {
    if (unit) {
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<Index>>(exec, 0, items),
                           HostKernel<T, Exec>{problem});
      return;
    }
  }
  constexpr int team_size = impl::is_host_execution<Exec> ? 1 : 128;
  const auto league = static_cast<int>(std::min<Index>(items, Index(1) << 20));
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, team_size), TeamKernel<T, Exec>{problem});
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void gated_rms_norm<T, EXEC>(const EXEC&, const GatedRmsNormArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
