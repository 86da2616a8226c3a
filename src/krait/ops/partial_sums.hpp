// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Gradients of parameters are sums over all tokens. Each block of tokens leaves its sum in a slot of its own; then the
/// slots are added in ascending order. The blocks depend on the extents only, so the bits do not depend on threads.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/core/tensor.hpp>

namespace krait::impl {

/// `tokens` tokens in `count` blocks of `size`, the last one possibly shorter.
struct TokenBlocks {
  static constexpr std::int64_t most = 1024;  // bounds the workspace however long the sequence is

  std::int64_t tokens;
  std::int64_t size;
  std::int64_t count;

  TokenBlocks(std::int64_t tokens_in_all, std::int64_t smallest)
      : tokens(tokens_in_all),
        size(std::max(smallest, (tokens + most - 1) / most)),
        count((tokens + size - 1) / size) {}

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t begin(std::int64_t block) const { return block * size; }
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t end(std::int64_t block) const {
    return tokens < (block + 1) * size ? tokens : (block + 1) * size;
  }
};

/// (blocks, terms, columns) sums in the caller's workspace, or nothing where no sum is wanted.
template <class A>
struct PartialSums {
  A* data;
  std::int64_t terms;
  std::int64_t columns;

  static std::size_t bytes(const TokenBlocks& blocks, std::int64_t terms, std::int64_t columns) {
    return static_cast<std::size_t>(blocks.count * terms * columns) * sizeof(A);
  }

  /// The sums of one term of one block.
  [[nodiscard]] KOKKOS_FUNCTION A* row(std::int64_t block, std::int64_t term) const {
    return data + (block * terms + term) * columns;
  }
};

/// The sums in `workspace`.
/// \throws CapacityError when it is too small or not aligned
template <class A, class Exec>
PartialSums<A> partial_sums(const char* function, const Tensor<std::byte*, Exec>& workspace, const TokenBlocks& blocks,
                            std::int64_t terms, std::int64_t columns) {
  const std::size_t bytes = PartialSums<A>::bytes(blocks, terms, columns);
  KRAIT_REQUIRE(CapacityError, workspace.size() >= bytes && (bytes == 0 || workspace.stride(0) == 1), function,
                ": workspace has ", workspace.size(), " bytes, expected ", bytes);
  KRAIT_REQUIRE(CapacityError, reinterpret_cast<std::uintptr_t>(workspace.data()) % alignof(A) == 0, function,
                ": workspace begins at a byte that no number may begin at, expected a multiple of ", alignof(A));
  return {reinterpret_cast<A*>(workspace.data()), terms, columns};
}

/// destination(column, i) += sum over blocks, in ascending order, of the sums of term first_term + i.
template <class A, class Exec>
struct AddPartialSums {
  static constexpr int width = is_host_execution<Exec> ? 64 : 1;  // columns of one item

  PartialSums<A> sums;
  std::int64_t blocks;
  std::int64_t first_term;
  Tensor<A**, Exec> destination;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t strips() const { return (sums.columns + width - 1) / width; }
  [[nodiscard]] std::int64_t items() const { return static_cast<std::int64_t>(destination.extent(1)) * strips(); }

  KOKKOS_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t term = item / strips();
    const std::int64_t column = item % strips() * width;
    const auto count = static_cast<int>(sums.columns - column < width ? sums.columns - column : width);
    A total[width] = {};
    for (std::int64_t block = 0; block < blocks; ++block) {
      const A* partial = sums.row(block, first_term + term) + column;
      for (int i = 0; i < count; ++i) total[i] += partial[i];
    }
    for (int i = 0; i < count; ++i) destination(column + i, term) += total[i];
  }
};

template <class A, class Exec>
void add_partial_sums(const Exec& exec, const std::string& label, const PartialSums<A>& sums, const TokenBlocks& blocks,
                      std::int64_t first_term, const Tensor<A**, Exec>& destination) {
  const AddPartialSums<A, Exec> add{sums, blocks.count, first_term, destination};
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, add.items()), add);
}

/// A vector as a matrix of one column.
template <class A, class Exec>
Tensor<A**, Exec> as_column(const Tensor<A*, Exec>& vector) {
  return make_tensor<A**, Exec, 2>(vector.data(), {static_cast<std::int64_t>(vector.extent(0)), 1},
                                   {static_cast<std::int64_t>(vector.stride(0)), 1});
}

}  // namespace krait::impl
