// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>
#include <type_traits>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/projection_product.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// One team per some tiles of tokens and a tile of outputs, which walks over the inputs in blocks: load both factors,
/// multiply, add to the tile of sums. The order of the sum depends on nothing but the block. Where a block holds all
/// inputs, the weights are loaded once for all tiles of tokens of a team, and a host reads the tokens where they are.
template <Scalar T, class Exec>
struct TileProduct {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;
  using Tile = impl::ProductTile<A, Exec>;
  using Member = typename Policy::member_type;
  static constexpr bool may_read_in_place = Tile::on_host && std::is_same_v<T, A>;
  static constexpr std::int64_t most_tiles_of_team = 4;

  Tensor<const T***, Exec> in;
  Tensor<const T**, Exec> weight;
  Tensor<const A*, Exec> bias;
  Tensor<T***, Exec> out;
  std::int64_t tiles_across;
  std::int64_t team_tiles;  ///< of tokens
  std::int64_t teams_down;
  bool in_place;    ///< tokens are read where they lie
  bool past_cache;  ///< see goes_past_cache()

  TileProduct(const Exec& exec, const ProjectionArguments<T, Exec>& arguments, bool fold)
      : in(fold ? impl::as_one_row<const T***, Exec>(arguments.in) : arguments.in),
        weight(arguments.weight),
        bias(arguments.bias),
        out(fold ? impl::as_one_row<T***, Exec>(arguments.out) : arguments.out),
        tiles_across((static_cast<std::int64_t>(out.extent(2)) + Tile::columns - 1) / Tile::columns),
        team_tiles(1),
        teams_down((static_cast<std::int64_t>(out.extent(1)) + Tile::rows - 1) / Tile::rows),
        in_place(may_read_in_place && inputs() <= Tile::depth && in.stride(2) == 1 &&
                 static_cast<std::int64_t>(in.stride(1)) == inputs()),
        past_cache(may_read_in_place && out.stride(2) == 1 && impl::goes_past_cache(out)) {
    if (!Tile::on_host || inputs() > Tile::depth) return;
    // Teams enough that no thread waits long for another one at the end.
    const std::int64_t enough = 8 * static_cast<std::int64_t>(exec.concurrency());
    team_tiles = std::clamp<std::int64_t>(items() / enough, 1, most_tiles_of_team);
    teams_down = (teams_down + team_tiles - 1) / team_tiles;
  }

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const {
    return static_cast<std::int64_t>(out.extent(0)) * teams_down * tiles_across;
  }

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    const Tile block(team);
    const auto tokens = static_cast<std::int64_t>(out.extent(1));
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const std::int64_t o = item % tiles_across * Tile::columns;
      const std::int64_t first = item / tiles_across % teams_down * team_tiles * Tile::rows;
      const std::int64_t row = item / tiles_across / teams_down;
      const std::int64_t end = first + team_tiles * Tile::rows;
      for (std::int64_t t = first; t < tokens && t < end; t += Tile::rows) {
        multiply(team, row, t, o, block, t == first);
        team.team_barrier();
      }
    }
    if (past_cache) tile::finish_past_cache();
  }

 private:
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t inputs() const { return static_cast<std::int64_t>(in.extent(2)); }

  static KOKKOS_FUNCTION int part(std::int64_t begin, std::int64_t end, int size) {
    return static_cast<int>(end - begin < size ? end - begin : size);
  }

  KOKKOS_FUNCTION void load_weights(const Member& team, std::int64_t o, std::int64_t i, int width, int inner,
                                    const Tile& block) const {
    const tile::Matrix<const T> factors{&weight(o, i), static_cast<std::int64_t>(weight.stride(0)),
                                        static_cast<std::int64_t>(weight.stride(1))};
    Tile::for_each_panel(width, [&](int column, int count) {
      // Along the unit stride, whichever it is.
      if (factors.row == 1) {
        tile::load(team, inner, count, factors.from(column, 0).transposed(), block.right(column));
      } else {
        tile::load(team, count, inner, factors.from(column, 0), block.right(column).transposed());
      }
    });
  }

  /// sums += left * the weights that are loaded, or = for the first inputs
  template <class V>
  KOKKOS_FUNCTION void add_product(const Member& team, int height, int width, int inner, tile::Matrix<V> left,
                                   bool first, const Tile& block) const {
    Tile::for_each_panel(width, [&](int column, int count) {
      tile::gemm(team, height, count, inner, left, block.right(column), first ? A(0) : A(1),
                 block.sums().from(0, column));
    });
    team.team_barrier();
  }

  /// sums = the tile's part of in * weight^T, for at least one input.
  KOKKOS_FUNCTION void accumulate(const Member& team, std::int64_t row, std::int64_t t, std::int64_t o, int height,
                                  int width, const Tile& block, bool first_tile) const {
    const tile::Matrix<const T> tokens{&in(row, t, 0), static_cast<std::int64_t>(in.stride(1)),
                                       static_cast<std::int64_t>(in.stride(2))};
    for (std::int64_t i = 0; i < inputs(); i += Tile::depth) {
      const int inner = part(i, inputs(), Tile::depth);
      if (first_tile || inputs() > Tile::depth) load_weights(team, o, i, width, inner, block);
      if constexpr (may_read_in_place) {
        if (in_place) {
          team.team_barrier();
          add_product(team, height, width, inner, tokens, i == 0, block);
          continue;
        }
      }
      tile::load(team, height, inner, tokens.from(0, i), block.left());
      team.team_barrier();
      add_product(team, height, width, inner, block.left(), i == 0, block);
    }
  }

  KOKKOS_FUNCTION void multiply(const Member& team, std::int64_t row, std::int64_t t, std::int64_t o, const Tile& block,
                                bool first_tile) const {
    const int height = part(t, static_cast<std::int64_t>(out.extent(1)), Tile::rows);
    const int width = part(o, static_cast<std::int64_t>(out.extent(2)), Tile::columns);
    const tile::Matrix<A> sums = block.sums();
    if (inputs() == 0) {
      tile::fill(team, height, width, A(0), sums);
      team.team_barrier();
    } else {
      accumulate(team, row, t, o, height, width, block, first_tile);
    }
    if (bias.data() != nullptr) {
      tile::for_each(team, height, width, [&](int i, int j) { sums(i, j) += bias(o + j); });
      team.team_barrier();
    }
    const tile::Matrix<T> result{&out(row, t, o), static_cast<std::int64_t>(out.stride(1)),
                                 static_cast<std::int64_t>(out.stride(2))};
    if constexpr (may_read_in_place) {
      if (past_cache) {
        for (int i = 0; i < height; ++i) tile::copy_past_cache<T>(&sums(i, 0), &result(i, 0), width);
        return;
      }
    }
    tile::load(team, height, width, sums, result);
  }
};

/// Rows of the result before the product is added.
template <Scalar T, class Exec>
struct FillBias {
  Tensor<const accumulator_t<T>*, Exec> bias;
  impl::BlasMatrix<T> out;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t column = i % out.columns;
    out.data[i / out.columns * out.pitch + column] = static_cast<T>(bias(column));
  }
};

#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
template <Scalar T, class Exec>
void multiply_by_kokkos_kernels(const Exec& exec, const std::string& label,
                                const ProjectionArguments<T, Exec>& arguments) {
  const auto out = impl::tokens_matrix(arguments.out);
  const bool biased = !is_absent(arguments.bias);
  if (biased)
    Kokkos::parallel_for(label + "::bias",
                         Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, out.rows * out.columns),
                         FillBias<T, Exec>{arguments.bias, out});
  impl::kokkos_kernels_gemm<T, Exec>(exec, impl::tokens_matrix(arguments.in),
                                     impl::weight_matrix(arguments.weight).transpose(), out, biased);
}
#endif

template <Scalar T, class Exec>
void multiply_by_tiles(const Exec& exec, const std::string& label, const ProjectionArguments<T, Exec>& arguments) {
  using Product = TileProduct<T, Exec>;
  const bool fold = impl::token_pitch(arguments.in) != 0 && impl::token_pitch(arguments.out) != 0;
  const Product product(exec, arguments, fold);
  const auto league = static_cast<int>(std::min(product.items(), impl::largest_league));
  Kokkos::parallel_for(label,
                       typename Product::Policy(exec, league, impl::tile_team_size<Exec>)
                           .set_scratch_size(Product::Tile::level(), Kokkos::PerTeam(Product::Tile::bytes())),
                       product);
}

template <Scalar T, class Exec>
void check(const ProjectionArguments<T, Exec>& arguments) {
  const char* name = "krait::projection";
  const auto in = extents(arguments.in);
  const auto outputs = static_cast<std::int64_t>(arguments.weight.extent(0));
  impl::require_extents(name, "weight", extents(arguments.weight), {outputs, in[2]});
  impl::require_extents(name, "out", extents(arguments.out), {in[0], in[1], outputs});
  if (!is_absent(arguments.bias)) impl::require_extents(name, "bias", extents(arguments.bias), {outputs});
}

}  // namespace

template <Scalar T, class Exec>
void impl::multiply(const Exec& exec, const std::string& label, const ProjectionArguments<T, Exec>& arguments,
                    [[maybe_unused]] bool by_kokkos_kernels) {
#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
  if constexpr (impl::is_kokkos_kernels_scalar<T>()) {
    if (by_kokkos_kernels) return multiply_by_kokkos_kernels(exec, label, arguments);
  }
#endif
  multiply_by_tiles(exec, label, arguments);
}

template <Scalar T, class Exec>
void projection(const Exec& exec, const ProjectionArguments<T, Exec>& arguments) {
  const bool by_kokkos_kernels = impl::suits_kokkos_kernels(arguments);
  const std::string label = impl::operator_label<T>("krait::projection", by_kokkos_kernels ? "kokkos_kernels" : "tile");
  const Kokkos::Profiling::ScopedRegion region(label);
  check(arguments);
  if (arguments.out.size() != 0) impl::multiply(exec, label, arguments, by_kokkos_kernels);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                                   \
  template void impl::multiply<T, EXEC>(const EXEC&, const std::string&, const ProjectionArguments<T, EXEC>&, bool); \
  template void projection<T, EXEC>(const EXEC&, const ProjectionArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
