// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/state_update.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>
#include <krait/ops/strided.hpp>
#include <krait/tile/rows.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

constexpr const char* function = "krait::state_update";

/// The call, as both kernels see it.
template <Scalar T, class Exec>
struct Problem {
  using V = accumulator_t<T>;

  impl::Strided<V, 4> states;
  impl::Strided<const T, 4> x, B, C, z;
  impl::Strided<T, 4> out;
  MixedTensor<T, 3, Exec> dt;
  impl::Strided<const V, 1> A, dt_bias;
  impl::Strided<const V, 2> D;  ///< see skip_of()
  impl::Strided<const std::int64_t, 1> state_map;
  tile::StepRule<V> rule;
  std::int64_t batch, length, heads, head_dim, d_state, heads_per_group, first_head;

  Problem(const StateUpdateArguments<T, Exec>& a, const SsdScanShape& shape, const SsdScanOptions& options)
      : states(a.states),
        x(a.x),
        B(a.B),
        C(a.C),
        z(a.z),
        out(a.out),
        dt(a.dt),
        A(a.A),
        dt_bias(a.dt_bias),
        D(impl::skip_of<V>(a)),
        state_map(a.state_map),
        rule{static_cast<V>(options.dt_min), static_cast<V>(options.dt_max), options.dt_softplus},
        batch(shape.batch),
        length(shape.length),
        heads(shape.heads),
        head_dim(shape.head_dim),
        d_state(shape.d_state),
        heads_per_group(options.heads_per_group),
        first_head(options.first_head) {}

  /// Which state a row continues; negative for padding.
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t state_of(std::int64_t row) const {
    return state_map.given() ? state_map(row) : row;
  }
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t group_of(std::int64_t head) const {
    return (head + first_head) / heads_per_group;
  }
  [[nodiscard]] KOKKOS_FUNCTION V step(std::int64_t row, std::int64_t token, std::int64_t head) const {
    const V bias = dt_bias.given() ? dt_bias(head) : V(0);
    return tile::step_size(rule, dt(row, token, head) + bias);
  }
  [[nodiscard]] KOKKOS_FUNCTION V skip(std::int64_t head, std::int64_t channel) const {
    return D.given() ? D(head, channel) : V(0);
  }

  /// What a team or thread works on: some channels of one head of one row.
  struct Place {
    std::int64_t row;
    std::int64_t head;
    std::int64_t first;  ///< channels [first, last)
    std::int64_t last;
    std::int64_t state;
  };
  /// With `parts` items to a head, of `channels` channels each.
  [[nodiscard]] KOKKOS_FUNCTION Place place(std::int64_t item, std::int64_t parts, std::int64_t channels) const {
    const std::int64_t row = item / parts / heads;
    const std::int64_t first = item % parts * channels;
    return {row, item / parts % heads, first, first + channels < head_dim ? first + channels : head_dim, state_of(row)};
  }
};

/// One team per item, a row of the state by the lanes of a thread; any strides. A lane meets the same elements at every
/// token.
template <Scalar T, class Exec>
struct TeamKernel {
  using V = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  static constexpr std::int64_t channels = 32;

  Problem<T, Exec> problem;
  std::int64_t parts;

  explicit TeamKernel(const Problem<T, Exec>& p) : problem(p), parts((p.head_dim + channels - 1) / channels) {}

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const { return problem.batch * problem.heads * parts; }

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const auto place = problem.place(item, parts, channels);
      for (std::int64_t t = 0; t < problem.length; ++t) advance(team, place, t);
    }
  }

 private:
  KOKKOS_FUNCTION void advance(const Member& team, const typename Problem<T, Exec>::Place& place,
                               std::int64_t t) const {
    const std::int64_t group = problem.group_of(place.head);
    const V step = problem.step(place.row, t, place.head);
    const V decay = tile::decay(step * problem.A(place.head));
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, place.first, place.last), [&](std::int64_t p) {
      V y = V(0);
      if (place.state >= 0) {
        const V x = static_cast<V>(problem.x(place.row, t, place.head, p));
        Kokkos::parallel_reduce(
            Kokkos::ThreadVectorRange(team, problem.d_state),
            [&](std::int64_t n, V& sum) {
              V& s = problem.states(place.state, place.head, p, n);
              s = decay * s + step * x * static_cast<V>(problem.B(place.row, t, group, n));
              sum += s * static_cast<V>(problem.C(place.row, t, group, n));
            },
            y);
        y += problem.skip(place.head, p) * x;
        if (problem.z.given()) y *= tile::silu(static_cast<V>(problem.z(place.row, t, place.head, p)));
      }
      Kokkos::single(Kokkos::PerThread(team), [&]() { problem.out(place.row, t, place.head, p) = static_cast<T>(y); });
    });
  }
};

/// One host thread per item, for unit strides. Some rows of the state stay in the cache of a core while some tokens
/// pass over them.
template <Scalar T, class Exec>
struct HostKernel {
  using V = accumulator_t<T>;
  static constexpr int rows = 16;
  static constexpr int tokens = 8;

  Problem<T, Exec> problem;
  std::int64_t channels;  ///< of an item
  std::int64_t parts;

  /// Heads are cut where they are fewer than keep all threads busy.
  HostKernel(const Problem<T, Exec>& p, std::int64_t threads) : problem(p), channels(p.head_dim), parts(1) {
    const std::int64_t whole = p.batch * p.heads;
    const std::int64_t wanted = 4 * threads;
    if (threads > 1 && whole < wanted) {
      const std::int64_t pieces = std::min((wanted + whole - 1) / whole, (p.head_dim + rows - 1) / rows);
      channels = ((p.head_dim + pieces - 1) / pieces + rows - 1) / rows * rows;
      parts = (p.head_dim + channels - 1) / channels;
    }
  }

  [[nodiscard]] std::int64_t items() const { return problem.batch * problem.heads * parts; }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const auto place = problem.place(item, parts, channels);
    for (std::int64_t t = 0; t < problem.length; t += tokens) {
      const int count = static_cast<int>(problem.length - t < tokens ? problem.length - t : tokens);
      if (place.state < 0)
        clear(place, t, count);
      else
        advance(place, t, count);
    }
  }

 private:
  using Place = typename Problem<T, Exec>::Place;

  KOKKOS_FUNCTION void clear(const Place& place, std::int64_t t, int count) const {
    for (int i = 0; i < count; ++i) {
      T* out = &problem.out(place.row, t + i, place.head, 0);
      for (std::int64_t p = place.first; p < place.last; ++p) out[p] = T(0);
    }
  }

  KOKKOS_FUNCTION void advance(const Place& place, std::int64_t t, int count) const {
    const std::int64_t group = problem.group_of(place.head);
    V steps[tokens];
    V decays[tokens];
    for (int i = 0; i < count; ++i) {
      steps[i] = problem.step(place.row, t + i, place.head);
      decays[i] = tile::decay(steps[i] * problem.A(place.head));
    }
    alignas(64) V x[tokens][rows];
    alignas(64) V y[tokens][rows];
    for (std::int64_t p = place.first; p < place.last; p += rows) {
      const int width = static_cast<int>(place.last - p < rows ? place.last - p : rows);
      tile::load_rows(tile::InputRows<T, V>{count, width, &problem.x(place.row, t, place.head, p), problem.x.stride[1],
                                            x[0], rows});
      const T* z[tokens];
      T* out[tokens];
      for (int i = 0; i < count; ++i) {
        tile::advance_state_rows(tile::StateRows<T, V>{
            width, problem.d_state, &problem.states(place.state, place.head, p, 0), problem.states.stride[2], decays[i],
            steps[i], &problem.B(place.row, t + i, group, 0), &problem.C(place.row, t + i, group, 0), x[i], y[i]});
        if (problem.D.given()) {
          for (int c = 0; c < width; ++c) y[i][c] += problem.D(place.head, p + c) * x[i][c];
        }
        if (problem.z.given()) z[i] = &problem.z(place.row, t + i, place.head, p);
        out[i] = &problem.out(place.row, t + i, place.head, p);
      }
      tile::store_rows(
          tile::OutputRows<T, V>{count, width, y[0], rows, false, problem.z.given() ? z : nullptr, nullptr, out});
    }
  }
};

template <Scalar T, class Exec>
SsdScanShape shape_of(const StateUpdateArguments<T, Exec>& a) {
  const auto x = extents(a.x);
  return {x[0], x[1], x[2], x[3], static_cast<std::int64_t>(a.B.extent(2)), static_cast<std::int64_t>(a.B.extent(3))};
}

template <Scalar T, class Exec>
void check(const StateUpdateArguments<T, Exec>& a, const SsdScanShape& shape) {
  const std::int64_t b = shape.batch, L = shape.length, H = shape.heads, P = shape.head_dim, G = shape.groups,
                     N = shape.d_state;
  const auto require_optional = [&](const char* name, const auto& view, const std::vector<std::int64_t>& expected) {
    if (!is_absent(view)) impl::require_extents(function, name, extents(view), expected);
  };
  const std::int64_t states = is_absent(a.state_map) ? b : static_cast<std::int64_t>(a.states.extent(0));
  require_optional("state_map", a.state_map, {b});
  impl::require_extents(function, "states", extents(a.states), {states, H, P, N});
  impl::require_extents(function, "dt", a.dt.extents(), {b, L, H});
  impl::require_extents(function, "A", extents(a.A), {H});
  impl::require_extents(function, "B", extents(a.B), {b, L, G, N});
  impl::require_extents(function, "C", extents(a.C), {b, L, G, N});
  impl::require_extents(function, "out", extents(a.out), {b, L, H, P});
  require_optional("D", a.D, {H});
  require_optional("D_per_channel", a.D_per_channel, {H, P});
  require_optional("z", a.z, {b, L, H, P});
  require_optional("dt_bias", a.dt_bias, {H});
  KRAIT_REQUIRE(ConfigError, is_absent(a.D) || is_absent(a.D_per_channel), function,
                ": D and D_per_channel are both given, expected one of them at most");
}

/// Whether rows of everything can go to the row functions.
template <Scalar T, class Exec>
bool have_unit_rows(const Problem<T, Exec>& p) {
  return p.states.stride[3] == 1 && p.x.stride[3] == 1 && p.B.stride[3] == 1 && p.C.stride[3] == 1 &&
         p.out.stride[3] == 1 && (!p.z.given() || p.z.stride[3] == 1);
}

}  // namespace

template <Scalar T, class Exec>
void state_update(const Exec& exec, const StateUpdateArguments<T, Exec>& arguments) {
  using Index = std::int64_t;
  const SsdScanShape shape = shape_of(arguments);
  SsdScanOptions options;
  options.dt_softplus = arguments.dt_softplus;
  options.dt_min = arguments.dt_min;
  options.dt_max = arguments.dt_max;
  options.heads_per_group = arguments.heads_per_group;
  options.first_head = arguments.first_head;
  options = impl::complete_scan_options(function, shape, options);
  check(arguments, shape);
  const Problem<T, Exec> problem(arguments, shape, options);
  const bool by_rows = impl::is_host_execution<Exec> && have_unit_rows(problem);
  const std::string label = impl::operator_label<T>(function, impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  if (shape.batch == 0 || shape.length == 0) return;

  if constexpr (impl::is_host_execution<Exec>) {
    if (by_rows) {
      const HostKernel<T, Exec> kernel(problem, exec.concurrency());
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<Index>>(exec, 0, kernel.items()), kernel);
      return;
    }
  }
  const TeamKernel<T, Exec> kernel(problem);
  const auto league = static_cast<int>(std::min<Index>(kernel.items(), Index(1) << 20));
  constexpr int team_size = impl::is_host_execution<Exec> ? 1 : 8;
  constexpr int lanes = impl::is_host_execution<Exec> ? 1 : 32;
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, team_size, lanes), kernel);
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void state_update<T, EXEC>(const EXEC&, const StateUpdateArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
