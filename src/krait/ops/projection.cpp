// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/projection_product.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// One team per tile of tokens and outputs, which walks over the inputs in blocks: load both factors, multiply, add to
/// the tile of sums. The order of the sum depends on nothing but the block.
template <Scalar T, class Exec>
struct TileProduct {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;
  using Tile = impl::ProductTile<A, Exec>;

  Tensor<const T***, Exec> in;
  Tensor<const T**, Exec> weight;
  Tensor<const A*, Exec> bias;
  Tensor<T***, Exec> out;
  std::int64_t tiles_down;
  std::int64_t tiles_across;

  TileProduct(const ProjectionArguments<T, Exec>& arguments, bool fold)
      : in(fold ? impl::as_one_row<const T***, Exec>(arguments.in) : arguments.in),
        weight(arguments.weight),
        bias(arguments.bias),
        out(fold ? impl::as_one_row<T***, Exec>(arguments.out) : arguments.out),
        tiles_down((static_cast<std::int64_t>(out.extent(1)) + Tile::rows - 1) / Tile::rows),
        tiles_across((static_cast<std::int64_t>(out.extent(2)) + Tile::columns - 1) / Tile::columns) {}

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const {
    return static_cast<std::int64_t>(out.extent(0)) * tiles_down * tiles_across;
  }

  KOKKOS_FUNCTION void operator()(const typename Policy::member_type& team) const {
    const Tile block(team);
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const std::int64_t o = item % tiles_across * Tile::columns;
      const std::int64_t t = item / tiles_across % tiles_down * Tile::rows;
      const std::int64_t row = item / tiles_across / tiles_down;
      multiply(team, row, t, o, block);
      team.team_barrier();
    }
  }

 private:
  static KOKKOS_FUNCTION int part(std::int64_t begin, std::int64_t end, int size) {
    return static_cast<int>(end - begin < size ? end - begin : size);
  }

  /// sums = the tile's part of in * weight^T, for at least one input.
  KOKKOS_FUNCTION void accumulate(const typename Policy::member_type& team, std::int64_t row, std::int64_t t,
                                  std::int64_t o, int height, int width, const Tile& block) const {
    const auto inputs = static_cast<std::int64_t>(in.extent(2));
    const tile::Matrix<const T> tokens{&in(row, t, 0), static_cast<std::int64_t>(in.stride(1)),
                                       static_cast<std::int64_t>(in.stride(2))};
    const tile::Matrix<const T> factors{&weight(o, 0), static_cast<std::int64_t>(weight.stride(0)),
                                        static_cast<std::int64_t>(weight.stride(1))};
    for (std::int64_t i = 0; i < inputs; i += Tile::depth) {
      const int inner = part(i, inputs, Tile::depth);
      tile::load(team, height, inner, tokens.from(0, i), block.left());
      Tile::for_each_panel(width, [&](int column, int count) {
        // Along the unit stride, whichever it is.
        if (factors.row == 1) {
          tile::load(team, inner, count, factors.from(column, i).transposed(), block.right(column));
        } else {
          tile::load(team, count, inner, factors.from(column, i), block.right(column).transposed());
        }
      });
      team.team_barrier();
      Tile::for_each_panel(width, [&](int column, int count) {
        tile::gemm(team, height, count, inner, block.left(), block.right(column), i == 0 ? A(0) : A(1),
                   block.sums().from(0, column));
      });
      team.team_barrier();
    }
  }

  KOKKOS_FUNCTION void multiply(const typename Policy::member_type& team, std::int64_t row, std::int64_t t,
                                std::int64_t o, const Tile& block) const {
    const int height = part(t, static_cast<std::int64_t>(out.extent(1)), Tile::rows);
    const int width = part(o, static_cast<std::int64_t>(out.extent(2)), Tile::columns);
    const tile::Matrix<A> sums = block.sums();
    if (in.extent(2) == 0) {
      tile::fill(team, height, width, A(0), sums);
      team.team_barrier();
    } else {
      accumulate(team, row, t, o, height, width, block);
    }
    if (bias.data() != nullptr) {
      tile::for_each(team, height, width, [&](int i, int j) { sums(i, j) += bias(o + j); });
      team.team_barrier();
    }
    tile::load(team, height, width, sums,
               tile::Matrix<T>{&out(row, t, o), static_cast<std::int64_t>(out.stride(1)),
                               static_cast<std::int64_t>(out.stride(2))});
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
  const Product product(arguments, fold);
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
