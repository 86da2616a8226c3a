// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/ops/projection_backward.hpp>

#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/ops/checks.hpp>
#include <krait/ops/partial_sums.hpp>
#include <krait/ops/projection_product.hpp>
#include <krait/tile/tile.hpp>

namespace krait {
namespace {

/// Blocks of tokens for partial sums of so many elements: as many as fit into a few megabytes, none of them short.
impl::TokenBlocks token_blocks(std::int64_t tokens, std::int64_t elements) {
  constexpr std::int64_t most_elements = std::int64_t{1} << 21;
  constexpr std::int64_t shortest = 512;
  const std::int64_t most_blocks = std::max<std::int64_t>(most_elements / std::max<std::int64_t>(elements, 1), 1);
  return {tokens, std::max(shortest, (tokens + most_blocks - 1) / most_blocks)};
}

/// Rows of partial sums of dweight: none for a single block, which is added to the gradient at once.
std::int64_t partial_rows(const impl::TokenBlocks& blocks, std::int64_t outputs) {
  return blocks.count > 1 ? outputs : 0;
}

/// body(row, token, count) for the stretches of consecutive tokens within [begin, end), counted over all rows, each
/// within one row and of at most `most` tokens.
template <class Body>
KOKKOS_INLINE_FUNCTION void for_each_stretch(std::int64_t begin, std::int64_t end, std::int64_t row_length,
                                             std::int64_t most, const Body& body) {
  while (begin < end) {
    const std::int64_t row = begin / row_length;
    const std::int64_t token = begin - row * row_length;
    const std::int64_t left = row_length - token < end - begin ? row_length - token : end - begin;
    const std::int64_t count = left < most ? left : most;
    body(row, token, count);
    begin += count;
  }
}

/// dweight = dout^T * in. A team per tile of the weight and block of tokens walks over the tokens a few at a time: load
/// both factors, multiply, add to the tile of sums.
template <Scalar T, class Exec>
struct WeightProduct {
  using A = accumulator_t<T>;
  using Policy = Kokkos::TeamPolicy<Exec>;
  using Tile = impl::ProductTile<A, Exec>;  ///< rows: outputs, columns: inputs, depth: tokens

  Tensor<const T***, Exec> in;
  Tensor<const T***, Exec> dout;
  Tensor<A**, Exec> dweight;
  impl::TokenBlocks blocks;
  impl::PartialSums<A> partials;  ///< terms: outputs, columns: inputs
  std::int64_t tiles_down;
  std::int64_t tiles_across;

  WeightProduct(const ProjectionBackwardArguments<T, Exec>& arguments, const impl::TokenBlocks& blocks_,
                const impl::PartialSums<A>& partials_)
      : in(arguments.in),
        dout(arguments.dout),
        dweight(arguments.dweight),
        blocks(blocks_),
        partials(partials_),
        tiles_down((static_cast<std::int64_t>(dweight.extent(0)) + Tile::rows - 1) / Tile::rows),
        tiles_across((static_cast<std::int64_t>(dweight.extent(1)) + Tile::columns - 1) / Tile::columns) {}

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t items() const { return blocks.count * tiles_down * tiles_across; }

  KOKKOS_FUNCTION void operator()(const typename Policy::member_type& team) const {
    const Tile factors(team);
    for (std::int64_t item = team.league_rank(); item < items(); item += team.league_size()) {
      const std::int64_t i = item % tiles_across * Tile::columns;
      const std::int64_t o = item / tiles_across % tiles_down * Tile::rows;
      sum_of_tile(team, item / tiles_across / tiles_down, o, i, factors);
      team.team_barrier();
    }
  }

 private:
  KOKKOS_FUNCTION void sum_of_tile(const typename Policy::member_type& team, std::int64_t block, std::int64_t o,
                                   std::int64_t i, const Tile& factors) const {
    const auto outputs = static_cast<std::int64_t>(dweight.extent(0));
    const auto inputs = static_cast<std::int64_t>(dweight.extent(1));
    const int height = static_cast<int>(outputs - o < Tile::rows ? outputs - o : Tile::rows);
    const int width = static_cast<int>(inputs - i < Tile::columns ? inputs - i : Tile::columns);
    const tile::Matrix<A> sums = factors.sums();
    tile::fill(team, height, width, A(0), sums);
    const auto length = static_cast<std::int64_t>(in.extent(1));
    for_each_stretch(blocks.begin(block), blocks.end(block), length, Tile::depth,
                     [&](std::int64_t row, std::int64_t t, std::int64_t stretch) {
                       const int count = static_cast<int>(stretch);
                       tile::load(team, count, height, tokens_of(dout, row, t, o), factors.left_columns());
                       Tile::for_each_panel(width, [&](int column, int columns) {
                         tile::load(team, count, columns, tokens_of(in, row, t, i + column), factors.right(column));
                       });
                       team.team_barrier();
                       Tile::for_each_panel(width, [&](int column, int columns) {
                         tile::gemm(team, height, columns, count, factors.left_columns().transposed(),
                                    factors.right(column), A(1), sums.from(0, column));
                       });
                       team.team_barrier();
                     });
    if (blocks.count == 1) {
      tile::for_each(team, height, width, [&](int r, int c) { dweight(o + r, i + c) += sums(r, c); });
    } else {
      tile::load(team, height, width, sums, tile::Matrix<A>{partials.row(block, o) + i, inputs, 1});
    }
  }

  static KOKKOS_FUNCTION tile::Matrix<const T> tokens_of(const Tensor<const T***, Exec>& tensor, std::int64_t row,
                                                         std::int64_t token, std::int64_t feature) {
    return {&tensor(row, token, feature), static_cast<std::int64_t>(tensor.stride(1)),
            static_cast<std::int64_t>(tensor.stride(2))};
  }
};

/// Sums of dout over the tokens of each block, for a few outputs at a time.
template <Scalar T, class Exec>
struct BiasSums {
  using A = accumulator_t<T>;
  static constexpr int columns = impl::is_host_execution<Exec> ? 64 : 1;

  Tensor<const T***, Exec> dout;
  impl::TokenBlocks blocks;
  impl::PartialSums<A> partials;  ///< one term, columns: outputs

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t strips() const { return (partials.columns + columns - 1) / columns; }
  [[nodiscard]] std::int64_t items() const { return blocks.count * strips(); }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t block = item / strips();
    const std::int64_t o = item % strips() * columns;
    const int width = static_cast<int>(partials.columns - o < columns ? partials.columns - o : columns);
    A sums[columns] = {};
    // A loop of its own, because the compiler makes vectors only of extents and strides that it knows.
    const bool whole = width == columns && dout.stride(2) == 1;
    const auto length = static_cast<std::int64_t>(dout.extent(1));
    const auto add = [&](std::int64_t row, std::int64_t t, std::int64_t count) {
      for (std::int64_t n = t; n < t + count; ++n) {
        if (whole) {
          const T* values = &dout(row, n, o);
          for (int j = 0; j < columns; ++j) sums[j] += static_cast<A>(values[j]);
        } else {
          for (int j = 0; j < width; ++j) sums[j] += static_cast<A>(dout(row, n, o + j));
        }
      }
    };
    for_each_stretch(blocks.begin(block), blocks.end(block), length, length, add);
    for (int j = 0; j < width; ++j) partials.row(block, 0)[o + j] = sums[j];
  }
};

/// The transpose of a matrix.
template <class DataType, class Exec>
Tensor<DataType, Exec> transposed(const Tensor<DataType, Exec>& matrix) {
  return make_tensor<DataType, Exec, 2>(
      matrix.data(), {extents(matrix)[1], extents(matrix)[0]},
      {static_cast<std::int64_t>(matrix.stride(1)), static_cast<std::int64_t>(matrix.stride(0))});
}

/// The two gradients are summed one after the other, so their partial sums lie in the same place.
template <Scalar T>
struct Sums {
  impl::TokenBlocks weight_blocks;
  impl::TokenBlocks bias_blocks;
  impl::PartialSums<accumulator_t<T>> weight;
  impl::PartialSums<accumulator_t<T>> bias;
};

/// The projection whose output is din: that of dout by the transposed weight.
template <Scalar T, class Exec>
ProjectionArguments<T, Exec> input_product(const ProjectionBackwardArguments<T, Exec>& arguments) {
  ProjectionArguments<T, Exec> product;
  product.in = arguments.dout;
  product.weight = transposed<const T**, Exec>(arguments.weight);
  product.out = arguments.din;
  return product;
}

/// Whether Kokkos Kernels can take all products that are asked for.
template <Scalar T, class Exec>
bool suits_kokkos_kernels(const ProjectionBackwardArguments<T, Exec>& arguments) {
  if (!is_absent(arguments.din) && !impl::suits_kokkos_kernels(input_product(arguments))) return false;
  if (is_absent(arguments.dweight)) return impl::is_kokkos_kernels_scalar<T>();
  const auto dweight = impl::weight_matrix(arguments.dweight);
  return impl::is_kokkos_kernels_scalar<T>() && !impl::tokens_matrix(arguments.in).absent() &&
         !impl::tokens_matrix(arguments.dout).absent() && !dweight.absent() && !dweight.transposed;
}

template <Scalar T, class Exec>
void weight_gradient_by_tiles(const Exec& exec, const std::string& label,
                              const ProjectionBackwardArguments<T, Exec>& arguments, const Sums<T>& sums) {
  using Product = WeightProduct<T, Exec>;
  using A = accumulator_t<T>;
  const Product product(arguments, sums.weight_blocks, sums.weight);
  const auto league = static_cast<int>(std::min(product.items(), impl::largest_league));
  Kokkos::parallel_for(label,
                       typename Product::Policy(exec, league, impl::tile_team_size<Exec>)
                           .set_scratch_size(Product::Tile::level(), Kokkos::PerTeam(Product::Tile::bytes())),
                       product);
  if (sums.weight_blocks.count > 1)
    impl::add_partial_sums<A, Exec>(exec, label + "::sum", sums.weight, sums.weight_blocks, 0,
                                    transposed<A**, Exec>(arguments.dweight));
}

template <Scalar T, class Exec>
void weight_gradient(const Exec& exec, const std::string& label, const ProjectionBackwardArguments<T, Exec>& arguments,
                     const Sums<T>& sums, [[maybe_unused]] bool by_kokkos_kernels) {
#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
  if constexpr (impl::is_kokkos_kernels_scalar<T>()) {
    if (by_kokkos_kernels)
      return impl::kokkos_kernels_gemm<T, Exec>(exec, impl::tokens_matrix(arguments.dout).transpose(),
                                                impl::tokens_matrix(arguments.in),
                                                impl::weight_matrix(arguments.dweight), true);
  }
#endif
  weight_gradient_by_tiles(exec, label, arguments, sums);
}

template <Scalar T, class Exec>
void bias_gradient(const Exec& exec, const std::string& label, const ProjectionBackwardArguments<T, Exec>& arguments,
                   const Sums<T>& sums) {
  using A = accumulator_t<T>;
  const BiasSums<T, Exec> kernel{arguments.dout, sums.bias_blocks, sums.bias};
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, kernel.items()),
                       kernel);
  impl::add_partial_sums<A, Exec>(exec, label + "::sum", sums.bias, sums.bias_blocks, 0,
                                  impl::as_column<A, Exec>(arguments.dbias));
}

/// Checks everything; returns where the partial sums go.
template <Scalar T, class Exec>
Sums<T> check(const ProjectionBackwardArguments<T, Exec>& arguments) {
  const char* name = "krait::projection_backward";
  const auto dout = extents(arguments.dout);
  const std::int64_t inputs =
      is_absent(arguments.dweight) ? extents(arguments.weight)[1] : extents(arguments.dweight)[1];
  const std::vector<std::int64_t> tokens{dout[0], dout[1], inputs};
  const std::vector<std::int64_t> matrix{dout[2], inputs};
  const std::vector<std::int64_t> vector(1, dout[2]);
  const bool dweight = !is_absent(arguments.dweight);
  const bool dbias = !is_absent(arguments.dbias);
  if (!is_absent(arguments.din)) {
    impl::require_extents(name, "weight", extents(arguments.weight), matrix);
    impl::require_extents(name, "din", extents(arguments.din), tokens);
  }
  if (dweight) {
    impl::require_extents(name, "in", extents(arguments.in), tokens);
    impl::require_extents(name, "dweight", extents(arguments.dweight), matrix);
  }
  if (dbias) impl::require_extents(name, "dbias", extents(arguments.dbias), vector);

  using A = accumulator_t<T>;
  const impl::TokenBlocks weight_blocks = token_blocks(dout[0] * dout[1], dout[2] * inputs);
  const impl::TokenBlocks bias_blocks = token_blocks(dout[0] * dout[1], dout[2]);
  const std::int64_t rows = dweight ? partial_rows(weight_blocks, dout[2]) : 0;
  return {weight_blocks, bias_blocks,
          impl::partial_sums<A, Exec>(name, arguments.workspace, weight_blocks, rows, inputs),
          impl::partial_sums<A, Exec>(name, arguments.workspace, bias_blocks, dbias ? 1 : 0, dout[2])};
}

}  // namespace

template <Scalar T, class Exec>
std::size_t projection_backward_workspace_bytes(std::int64_t rows, std::int64_t length, std::int64_t inputs,
                                                std::int64_t outputs) {
  using Partials = impl::PartialSums<accumulator_t<T>>;
  const impl::TokenBlocks weight_blocks = token_blocks(rows * length, inputs * outputs);
  return std::max(Partials::bytes(weight_blocks, partial_rows(weight_blocks, outputs), inputs),
                  Partials::bytes(token_blocks(rows * length, outputs), 1, outputs));
}

template <Scalar T, class Exec>
void projection_backward(const Exec& exec, const ProjectionBackwardArguments<T, Exec>& arguments) {
  const bool by_kokkos_kernels = suits_kokkos_kernels(arguments);
  const std::string label =
      impl::operator_label<T>("krait::projection_backward", by_kokkos_kernels ? "kokkos_kernels" : "tile");
  const Kokkos::Profiling::ScopedRegion region(label);
  const Sums<T> sums = check(arguments);

  if (arguments.din.size() != 0) impl::multiply(exec, label + "::din", input_product(arguments), by_kokkos_kernels);
  if (arguments.dout.size() == 0) return;  // sums of no terms
  if (arguments.dweight.size() != 0) weight_gradient(exec, label + "::dweight", arguments, sums, by_kokkos_kernels);
  if (arguments.dbias.size() != 0) bias_gradient(exec, label + "::dbias", arguments, sums);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                            \
  template std::size_t projection_backward_workspace_bytes<T, EXEC>(std::int64_t, std::int64_t, std::int64_t, \
                                                                    std::int64_t);                            \
  template void projection_backward<T, EXEC>(const EXEC&, const ProjectionBackwardArguments<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
