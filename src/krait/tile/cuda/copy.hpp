// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Tokens on their way between memory and the tiles of a team, 16 bytes at a time where they are aligned.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/mma.hpp>
#include <krait/tile/cuda/product.hpp>
#include <krait/tile/generic/elementwise.hpp>
#include <krait/tile/generic/vector_math.hpp>
#include <krait/tile/matrix.hpp>

namespace krait::tile::cuda {

inline constexpr int vector_bytes = 16;
/// Elements of a vector access.
template <class T>
inline constexpr int vector_elements = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
KOKKOS_INLINE_FUNCTION bool is_aligned(const T* address) {
  return reinterpret_cast<std::uintptr_t>(address) % vector_bytes == 0;
}

/// What a vector access moves.
struct alignas(vector_bytes) Vector {
  std::uint32_t words[4];
};

/// Starts to copy 16 bytes; they are there after await_copies(). On chip they come without the help of registers.
KOKKOS_INLINE_FUNCTION void start_copy(bool on_chip, const void* from, void* to) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if (on_chip) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
    return;
  }
#else
  (void)on_chip;
#endif
  *static_cast<Vector*>(to) = *static_cast<const Vector*>(from);
}

/// Of the calling thread.
KOKKOS_INLINE_FUNCTION void await_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/// Starts to fill the tile `to` (tokens, pitch) with rows of `from`; those behind the last, to a whole tile step,
/// become 0. All are there for the team when each thread has called await_copies() and met the others at a barrier.
template <class Member, class E>
KOKKOS_INLINE_FUNCTION void start_load(const Member& team, bool on_chip, int tokens, int columns, Matrix<const E> from,
                                       E* to, int pitch) {
  constexpr int each = vector_elements<E>;
  if (from.column == 1 && columns % each == 0 && from.row % each == 0 && is_aligned(from.data)) {
    const int across = columns / each;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, tokens * across), [=](int index) {
      const int i = index / across;
      const int j = index % across * each;
      start_copy(on_chip, from.data + i * from.row + j, to + i * pitch + j);
    });
  } else {
    generic::for_each(team, tokens, columns, [=](int i, int j) { to[i * pitch + j] = from(i, j); });
  }
  const int behind = whole_tiles(tokens) - tokens;
  if (behind > 0) {
    generic::for_each(team, behind, columns, [=](int i, int j) { to[(tokens + i) * pitch + j] = E(0); });
  }
}

/// The rows that belong to a token in the caller's tensors.
template <class T>
struct OutputRow {
  const T* z;  ///< gate; nullptr: none
  T* y;        ///< for what comes before the gate; nullptr: not wanted
  T* out;
};

/// Stores rows of a tile. All rows are 16-byte aligned, and `channels` is a multiple of what fits there.
/// \param row_of  the OutputRow of a token
template <class T, class Member, class RowOf>
KOKKOS_INLINE_FUNCTION void store_tokens(const Member& team, int tokens, int channels, const float* from, int pitch,
                                         const RowOf& row_of) {
  constexpr int each = vector_elements<T>;
  const int across = channels / each;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, tokens * across), [&](int index) {
    const int m = index / across;
    const int p = index % across * each;
    const OutputRow<T> row = row_of(m);
    float values[each];
    KRAIT_UNROLLED
    for (int i = 0; i < each; i += 4) load_four(from + static_cast<std::ptrdiff_t>(m * pitch) + p + i, values + i);
    const auto store = [&](T* to) {
      Vector packed;
      for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 2) {
          packed.words[i] = pack<T>(values[2 * i], values[2 * i + 1]);
        } else {
          packed.words[i] = std::bit_cast<std::uint32_t>(values[i]);
        }
      }
      *reinterpret_cast<Vector*>(to + p) = packed;
    };
    if (row.y != nullptr) store(row.y);
    if (row.z != nullptr) {
      const Vector gate = *reinterpret_cast<const Vector*>(row.z + p);
      for (int i = 0; i < each; ++i) {
        if constexpr (sizeof(T) == 2) {
          values[i] *= generic::silu(unpack<T>(gate.words[i / 2], i % 2));
        } else {
          values[i] *= generic::silu(std::bit_cast<float>(gate.words[i]));
        }
      }
    }
    store(row.out);
  });
}

}  // namespace krait::tile::cuda
