// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Copies of tiles, with conversion, by one thread of a host, in vectors of the widest instruction set that the machine
/// has, chosen at run time. No Kokkos here, for the source with vector instructions.

#include <cstdint>

namespace krait::tile::host {

/// From a tile of rows x columns elements to another. The columns of `from` have unit stride, its rows are `from_pitch`
/// elements apart.
template <class From, class To>
struct LoadCall {
  int rows, columns;
  const From* from;
  std::int64_t from_pitch;
  To* to;
  std::int64_t to_pitch;
};

/// to[i * to_pitch + j] = from[i * from_pitch + j], from one of the four scalars to its accumulator or back.
template <class From, class To>
void load(const LoadCall<From, To>& call);

/// The same on the way to the transpose: to[j * to_pitch + i] = from[i * from_pitch + j].
template <class From, class To>
void load_transposed(const LoadCall<From, To>& call);

}  // namespace krait::tile::host
