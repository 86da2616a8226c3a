// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What the forward and the backward of a projection share: the product itself, and tensors seen as matrices.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include <krait/core/config.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_kokkos_kernels.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// Elements from one token to the next when the tokens of all rows are equally far apart, else 0.
template <class View>
std::int64_t token_pitch(const View& view) {
  const auto row = static_cast<std::int64_t>(view.stride(0));
  const auto token = static_cast<std::int64_t>(view.stride(1));
  if (view.extent(1) == 1) return view.extent(0) == 1 ? static_cast<std::int64_t>(view.extent(2)) : row;
  if (view.extent(0) == 1) return token;
  return row == token * static_cast<std::int64_t>(view.extent(1)) ? token : 0;
}

/// The same tokens as one row.
template <class DataType, class Exec>
Tensor<DataType, Exec> as_one_row(const Tensor<DataType, Exec>& view) {
  return make_tensor<DataType, Exec, 3>(
      view.data(), {1, static_cast<std::int64_t>(view.extent(0) * view.extent(1)), extents(view)[2]},
      {0, token_pitch(view), static_cast<std::int64_t>(view.stride(2))});
}

/// \name Tensors as matrices for BLAS; none where they cannot be
/// \{
template <class View>
BlasMatrix<typename View::value_type> tokens_matrix(const View& view) {
  const std::int64_t pitch = token_pitch(view);
  if (pitch == 0 || view.stride(2) != 1) return {};
  return blas_matrix(view.data(), static_cast<std::int64_t>(view.extent(0) * view.extent(1)), extents(view)[2], pitch,
                     std::int64_t{1});
}

template <class View>
BlasMatrix<typename View::value_type> weight_matrix(const View& view) {
  return blas_matrix(view.data(), extents(view)[0], extents(view)[1], static_cast<std::int64_t>(view.stride(0)),
                     static_cast<std::int64_t>(view.stride(1)));
}
/// \}

/// Whether products of this scalar may be left to Kokkos Kernels.
template <Scalar T>
constexpr bool is_kokkos_kernels_scalar() {
#ifdef KRAIT_ENABLE_KOKKOS_KERNELS
  return std::is_same_v<T, accumulator_t<T>>;
#else
  return false;
#endif
}

/// Whether Kokkos Kernels can take the tensors as they are.
template <Scalar T, class Exec>
bool suits_kokkos_kernels(const ProjectionArguments<T, Exec>& arguments) {
  return is_kokkos_kernels_scalar<T>() && arguments.in.extent(2) != 0 && !tokens_matrix(arguments.in).absent() &&
         !weight_matrix(arguments.weight).absent() && !tokens_matrix(arguments.out).absent();
}

/// projection() without its checks and its label: by Kokkos Kernels, where they suit, or by tiles. The weight may be
/// the transpose of what is stored.
template <Scalar T, class Exec>
void multiply(const Exec& exec, const std::string& label, const ProjectionArguments<T, Exec>& arguments,
              bool by_kokkos_kernels);

/// Teams of the tile products: one host thread or a block of a GPU, and the largest league.
template <class Exec>
inline constexpr int tile_team_size = is_host_execution<Exec> ? 1 : 128;
inline constexpr std::int64_t largest_league = std::int64_t{1} << 20;

/// What a team of the tile products has in scratch memory: blocks of the two factors, in the type of the sums, and the
/// tile of sums. On a host they fit into half a megabyte of cache together, and each element that is loaded meets more
/// than a hundred others. The right factor lies in panels of four vectors at most: one of them and some rows of the
/// left factor fit into 48 KiB.
template <class A, class Exec>
struct ProductTile {
  static constexpr bool on_host = is_host_execution<Exec>;
  static constexpr int rows = on_host ? projection_rows : 32;
  static constexpr int columns = on_host ? 128 : 32;
  static constexpr int depth = on_host ? 128 : 32;
  static constexpr int panel = on_host ? 256 / static_cast<int>(sizeof(A)) : columns;

  A* memory;

  /// Elements, and one more for the alignment.
  [[nodiscard]] static KOKKOS_FUNCTION constexpr std::size_t bytes() {
    return sizeof(A) * (rows * depth + depth * columns + rows * columns) + alignment;
  }

  template <class Member>
  KOKKOS_INLINE_FUNCTION explicit ProductTile(const Member& team)
      : memory(static_cast<A*>(team.team_scratch(level()).get_shmem_aligned(bytes() - alignment, alignment))) {}

  /// rows x depth elements, or their transpose
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Matrix<A> left() const { return {memory, depth, 1}; }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Matrix<A> left_columns() const { return {memory, rows, 1}; }
  /// depth x panel elements, the columns from `column` on
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Matrix<A> right(int column) const {
    return {memory + rows * depth + column * depth, panel, 1};
  }
  [[nodiscard]] KOKKOS_INLINE_FUNCTION tile::Matrix<A> sums() const {
    return {memory + rows * depth + depth * columns, columns, 1};
  }

  /// body(column, count) for the panels of `width` columns
  template <class Body>
  static KOKKOS_INLINE_FUNCTION void for_each_panel(int width, const Body& body) {
    for (int column = 0; column < width; column += panel) body(column, width - column < panel ? width - column : panel);
  }

  [[nodiscard]] static KOKKOS_FUNCTION constexpr int level() { return tile_scratch_level<Exec>; }

 private:
  static constexpr std::size_t alignment = 64;
};

}  // namespace krait::impl
