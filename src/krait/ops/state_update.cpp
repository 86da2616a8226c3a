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

/// The products of some rows of a state with C.
template <class V>
struct RowSums {
  static constexpr int rows = 4;

  V of_row[rows] = {};

  KOKKOS_FUNCTION RowSums& operator+=(const RowSums& other) {
    for (int r = 0; r < rows; ++r) of_row[r] += other.of_row[r];
    return *this;
  }
};

}  // namespace
}  // namespace krait

template <class V>
struct Kokkos::reduction_identity<krait::RowSums<V>> {
  KOKKOS_FUNCTION static krait::RowSums<V> sum() { return {}; }
};

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

/// One team per item. The lanes of a thread take some rows of the state at a time, N neighbouring elements each:
/// several lie in packs, a single one at any strides. A lane meets the same elements at every token.
template <Scalar T, class Exec, int N>
struct TeamKernel {
  using V = accumulator_t<T>;
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  using Sums = RowSums<V>;
  static constexpr int rows = Sums::rows;

  Problem<T, Exec> problem;
  int lanes;
  int threads;
  std::int64_t channels;  ///< of an item
  std::int64_t parts;

  explicit TeamKernel(const Problem<T, Exec>& p)
      : problem(p), lanes(lanes_for(p.d_state / N)), threads(impl::is_host_execution<Exec> ? 8 : 256 / lanes) {
    channels = std::int64_t{rows} * threads;
    parts = (p.head_dim + channels - 1) / channels;
  }

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const { return problem.batch * problem.heads * parts; }

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const auto place = problem.place(item, parts, channels);
      for (std::int64_t t = 0; t < problem.length; ++t) advance(team, place, t);
    }
  }

 private:
  using Place = typename Problem<T, Exec>::Place;

  /// Lanes that share a row of so many parts.
  static int lanes_for(std::int64_t in_row) {
    int lanes = impl::is_host_execution<Exec> ? 1 : 32;
    while (lanes > 1 && lanes > in_row) lanes /= 2;
    return lanes;
  }

  KOKKOS_FUNCTION void advance(const Member& team, const Place& place, std::int64_t t) const {
    const V step = problem.step(place.row, t, place.head);
    const V decay = tile::decay(step * problem.A(place.head));
    const std::int64_t blocks = (place.last - place.first + rows - 1) / rows;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, blocks), [&](std::int64_t block) {
      const std::int64_t first = place.first + block * rows;
      const int count = static_cast<int>(place.last - first < rows ? place.last - first : rows);
      V x[rows];
      KRAIT_UNROLLED
      for (int r = 0; r < rows; ++r)
        x[r] = r < count ? static_cast<V>(problem.x(place.row, t, place.head, first + r)) : V(0);
      Sums y;
      if (place.state >= 0) advance_rows(team, place, t, first, count, decay, step, x, y);
      Kokkos::single(Kokkos::PerThread(team), [&]() {
        for (int r = 0; r < count; ++r) finish(place, t, first + r, x[r], y.of_row[r]);
      });
    });
  }

  /// The rows of channels [first, first + count), and their products with C.
  KOKKOS_FUNCTION void advance_rows(const Member& team, const Place& place, std::int64_t t, std::int64_t first,
                                    int count, V decay, V step, const V (&x)[rows], Sums& y) const {
    const std::int64_t group = problem.group_of(place.head);
    Kokkos::parallel_reduce(
        Kokkos::ThreadVectorRange(team, problem.d_state / N),
        [&](std::int64_t part, Sums& sums) {
          const std::int64_t n = part * N;
          V s[rows][N] = {};
          KRAIT_UNROLLED
          for (int r = 0; r < rows; ++r) {
            if (r < count) tile::load_packs<N>(&problem.states(place.state, place.head, first + r, n), s[r]);
          }
          V b[N];
          V c[N];
          tile::load_packs<N>(&problem.B(place.row, t, group, n), b);
          tile::load_packs<N>(&problem.C(place.row, t, group, n), c);
          KRAIT_UNROLLED
          for (int r = 0; r < rows; ++r) {
            if (r >= count) break;
            KRAIT_UNROLLED
            for (int i = 0; i < N; ++i) {
              s[r][i] = decay * s[r][i] + step * x[r] * b[i];
              sums.of_row[r] += s[r][i] * c[i];
            }
            tile::store_packs<N>(s[r], &problem.states(place.state, place.head, first + r, n));
          }
        },
        Kokkos::Sum<Sums>(y));
  }

  KOKKOS_FUNCTION void finish(const Place& place, std::int64_t t, std::int64_t p, V x, V y) const {
    if (place.state >= 0) {
      y += problem.skip(place.head, p) * x;
      if (problem.z.given()) y *= tile::silu(static_cast<V>(problem.z(place.row, t, place.head, p)));
    }
    problem.out(place.row, t, place.head, p) = static_cast<T>(y);
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

/// Whether rows of everything can go to the row functions of a host.
template <Scalar T, class Exec>
bool have_unit_rows(const Problem<T, Exec>& p) {
  return p.states.stride[3] == 1 && p.x.stride[3] == 1 && p.B.stride[3] == 1 && p.C.stride[3] == 1 &&
         p.out.stride[3] == 1 && (!p.z.given() || p.z.stride[3] == 1);
}

/// Whether a GPU can take packs of elements of the state, and of what comes to them.
template <Scalar T, class Exec>
bool have_whole_packs(const Problem<T, Exec>& p) {
  constexpr int each = tile::pack_size<accumulator_t<T>>;
  return impl::is_aligned(p.states, p.d_state) && impl::is_aligned(p.B, tile::pack_size<T>) &&
         impl::is_aligned(p.C, tile::pack_size<T>) && p.d_state % each == 0;
}

template <int N, Scalar T, class Exec>
void launch_teams(const Exec& exec, const std::string& label, const Problem<T, Exec>& problem) {
  const TeamKernel<T, Exec, N> kernel(problem);
  const auto league = static_cast<int>(std::min<std::int64_t>(kernel.items(), std::int64_t{1} << 20));
  const int threads = tile::team_size_for(exec, kernel.threads);
  Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, league, threads, kernel.lanes), kernel);
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
  const bool by_rows = tile::works_in_packs<Exec> ? have_whole_packs(problem) : have_unit_rows(problem);
  const std::string label = impl::operator_label<T>(function, impl::path_of_rows<Exec>(by_rows));
  const Kokkos::Profiling::ScopedRegion region(label);
  if (shape.batch == 0 || shape.length == 0) return;

  if constexpr (!tile::works_in_packs<Exec>) {
    if (by_rows) {
      const HostKernel<T, Exec> kernel(problem, exec.concurrency());
      Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<Index>>(exec, 0, kernel.items()), kernel);
      return;
    }
  } else {
    if (by_rows) return launch_teams<tile::pack_size<accumulator_t<T>>>(exec, label, problem);
  }
  launch_teams<1>(exec, label, problem);
}

#define KRAIT_INSTANTIATE(T, EXEC) \
  template void state_update<T, EXEC>(const EXEC&, const StateUpdateArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
