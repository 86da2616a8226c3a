// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Loops of a team over the elements of a tile. On a host each thread takes whole rows, so that the compiler can make
/// vectors of the columns; on a GPU neighbouring threads take neighbouring columns.

#include <Kokkos_Core.hpp>

#include <krait/core/kokkos_shims.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile::generic {

/// body(i, j) for every i < rows, j < columns, in no particular order.
template <class Member, class Body>
KOKKOS_INLINE_FUNCTION void for_each(const Member& team, int rows, int columns, const Body& body) {
  if constexpr (impl::is_host_execution<typename Member::execution_space>) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, rows), [&](int i) {
      for (int j = 0; j < columns; ++j) body(i, j);
    });
  } else if (rows == 1) {
    // Without divisions, which take longer than most bodies.
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, columns), [&](int j) { body(0, j); });
  } else {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, rows * columns),
                         [&](int index) { body(index / columns, index % columns); });
  }
}

/// to(i, j) = from(i, j), converted to the element type of `to`. Transpose either side to transpose on the way.
template <class Member, class From, class To>
KOKKOS_INLINE_FUNCTION void load(const Member& team, int rows, int columns, Matrix<From> from, Matrix<To> to) {
  if (from.column == 1 && to.column == 1) {
    // A loop of its own, because the compiler makes vectors only of strides that it knows.
    for_each(team, rows, columns,
             [=](int i, int j) { to.data[i * to.row + j] = static_cast<To>(from.data[i * from.row + j]); });
  } else if (impl::is_host_execution<typename Member::execution_space> && from.column == 1 && to.row == 1) {
    // Transposing, some rows at a time: each is read, and each column of `to` written, in the order of memory.
    constexpr int some = 8;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, (rows + some - 1) / some), [=](int block) {
      const int begin = block * some;
      const int count = rows - begin < some ? rows - begin : some;
      const From* source = from.data + begin * from.row;
      To* target = to.data + begin;
      for (int j = 0; j < columns; ++j) {
        if (count == some) {
          for (int i = 0; i < some; ++i) target[j * to.column + i] = static_cast<To>(source[i * from.row + j]);
        } else {
          for (int i = 0; i < count; ++i) target[j * to.column + i] = static_cast<To>(source[i * from.row + j]);
        }
      }
    });
  } else {
    for_each(team, rows, columns, [=](int i, int j) { to(i, j) = static_cast<To>(from(i, j)); });
  }
}

/// to(i, j) = value
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void fill(const Member& team, int rows, int columns, V value, Matrix<V> to) {
  for_each(team, rows, columns, [=](int i, int j) { to(i, j) = value; });
}

/// a(i, j) *= factors[i]
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_rows(const Member& team, int rows, int columns, const V* factors, Matrix<V> a) {
  for_each(team, rows, columns, [=](int i, int j) { a(i, j) *= factors[i]; });
}

/// a(i, j) = factors[i] * a(i, j) + skip[j] * b(i, j); without the second term where skip is nullptr
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_rows_and_skip(const Member& team, int rows, int columns, const V* factors,
                                                Matrix<V> a, const V* skip, Matrix<V> b) {
  for_each(team, rows, columns,
           [=](int i, int j) { a(i, j) = factors[i] * a(i, j) + (skip != nullptr ? skip[j] * b(i, j) : V(0)); });
}

/// a(i, j) *= factors[j]
template <class Member, class V>
KOKKOS_INLINE_FUNCTION void scale_columns(const Member& team, int rows, int columns, const V* factors, Matrix<V> a) {
  for_each(team, rows, columns, [=](int i, int j) { a(i, j) *= factors[j]; });
}

}  // namespace krait::tile::generic
