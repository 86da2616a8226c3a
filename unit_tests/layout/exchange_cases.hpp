// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Layouts, shapes and numbers with which the redistribution is tested.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <krait/core/random.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <string>
#include <support/view_values.hpp>
#include <vector>

namespace krait::test {

using Index = std::vector<std::int64_t>;

/// The number of column q of token t in row b: different for neighbours, and exact in every scalar.
inline double pattern(std::int64_t t, std::int64_t b, std::int64_t q) {
  const auto number = static_cast<std::uint64_t>((t * 64 + b) * 4096 + q);
  return static_cast<double>(mix64(number) % 513) - 256.0;
}

/// All layouts of `length` tokens: every factory, lengths that divide and that do not.
inline std::vector<SequenceLayout> layouts(const Place& place, std::int64_t length) {
  Index cu{0, length / 3, length / 3, std::min(length, length / 3 + 1), length};
  std::vector<Index> stripes(static_cast<std::size_t>(place.size));
  // The last rank gets nothing where there is another one.
  const std::int64_t holders = std::max(1, place.size - 1);
  for (std::int64_t t = length; t-- > 0;) stripes[static_cast<std::size_t>(t % holders)].push_back(t);
  return {SequenceLayout::contiguous(place, length), SequenceLayout::zigzag(place, length),
          SequenceLayout::zigzag(place, length, Policy::tail_pad), SequenceLayout::zigzag_docs(place, cu),
          SequenceLayout::explicit_tokens(place, stripes)};
}

/// Heads and groups that divide by few numbers of ranks, and more ranks than heads.
inline std::vector<HeadShape> head_shapes() {
  return {{8, 3, 1, 2}, {8, 2, 2, 3}, {8, 1, 4, 2}, {8, 2, 8, 1}, {6, 2, 3, 5}, {3, 4, 1, 2}, {2, 2, 2, 2}};
}

/// What out(b, place of t, k) must be, for all tokens in order of places.
inline std::vector<double> expected_heads(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows,
                                          bool sequential) {
  std::vector<double> values;
  const Index columns = table.columns(layout.rank());
  const Index tokens = layout.inverse_index();
  for (std::int64_t b = 0; b < rows; ++b) {
    for (std::int64_t i = 0; i < layout.length(); ++i) {
      const std::int64_t t = sequential ? i : tokens[static_cast<std::size_t>(i)];
      for (const std::int64_t q : columns) values.push_back(pattern(t, b, q));
    }
  }
  return values;
}

/// The shard of a rank: all columns of its tokens.
inline std::vector<double> expected_shard(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows) {
  std::vector<double> values;
  for (std::int64_t b = 0; b < rows; ++b) {
    for (std::int64_t i = 0; i < layout.local_length(); ++i) {
      const std::int64_t t = layout.global_of_local(i);
      for (std::int64_t q = 0; q < table.width(); ++q) values.push_back(pattern(t, b, q));
    }
  }
  return values;
}

/// The memory layouts in which a shard is handed over.
enum class Strides { batch_first, sequence_first, columns_first, slice };
inline constexpr Strides all_strides[] = {Strides::batch_first, Strides::sequence_first, Strides::columns_first,
                                          Strides::slice};

template <class T>
using Shard = Kokkos::View<T***, Kokkos::LayoutStride>;

template <class T>
Shard<T> make_shard(Strides strides, std::int64_t rows, std::int64_t tokens, std::int64_t width) {
  const auto b = static_cast<std::size_t>(rows);
  const auto l = static_cast<std::size_t>(tokens);
  const auto w = static_cast<std::size_t>(width);
  const std::string label = "krait::test::shard";
  switch (strides) {
    case Strides::sequence_first:
      return Shard<T>(label, Kokkos::LayoutStride(b, w, l, b * w, w, 1));
    case Strides::columns_first:
      return Shard<T>(label, Kokkos::LayoutStride(b, l * w, l, 1, w, l));
    case Strides::slice: {
      const Kokkos::View<T***, Kokkos::LayoutRight> wide(label, b, l, w + 5);
      return Kokkos::subview(wide, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(std::size_t{2}, w + 2));
    }
    default:
      return Kokkos::View<T***, Kokkos::LayoutRight>(label, b, l, w);
  }
}

}  // namespace krait::test
