// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Neighbouring elements that a thread of a GPU moves in one access of 16 bytes, and where that is possible. A kernel
/// is written once for N elements a thread: a whole pack where rows are aligned, and a single one, at any stride, where
/// they are not.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/mma.hpp>

namespace krait::tile {

/// True where threads move packs. A host has row functions instead (tile/rows.hpp), but KRAIT_EMULATE_PACKS makes it do
/// what a GPU would: tests run whole operators so.
template <class Exec>
#if defined(KRAIT_EMULATE_PACKS)
inline constexpr bool works_in_packs = true;
#else
inline constexpr bool works_in_packs = !krait::impl::is_host_execution<Exec>;
#endif

/// Threads of a team where a GPU takes `wanted`: on a host one, or in such tests as many as there are.
template <class Exec>
int team_size_for(const Exec& exec, int wanted) {
  if (!krait::impl::is_host_execution<Exec>) return wanted;
  return works_in_packs<Exec> ? std::min(wanted, static_cast<int>(exec.concurrency())) : 1;
}

inline constexpr int pack_bytes = 16;

/// Elements of a whole pack.
template <class V>
inline constexpr int pack_size = pack_bytes / static_cast<int>(sizeof(V));

template <class V>
KOKKOS_INLINE_FUNCTION bool is_aligned(const V* place) {
  return reinterpret_cast<std::uintptr_t>(place) % pack_bytes == 0;
}

/// N neighbouring elements of global memory as they are stored, in registers.
template <Scalar V, int N>
class alignas(N * sizeof(V)) Pack {
  static_assert(N * sizeof(V) <= pack_bytes);
  /// Elements of two bytes go in pairs, which is how registers hold them.
  static constexpr bool in_pairs = sizeof(V) == 2 && N > 1;
  using Unit = std::conditional_t<in_pairs, std::uint32_t, V>;

 public:
  KOKKOS_DEFAULTED_FUNCTION Pack() = default;

  /// The elements at `place`, which lies at a multiple of the pack's size.
  KOKKOS_INLINE_FUNCTION static Pack load(const V* place) {
    Pack pack;
    KOKKOS_IF_ON_DEVICE((pack = *reinterpret_cast<const Pack*>(place);))
    KOKKOS_IF_ON_HOST((__builtin_memcpy(&pack, __builtin_assume_aligned(place, sizeof(Pack)), sizeof(Pack));))
    return pack;
  }

  KOKKOS_INLINE_FUNCTION void store(V* place) const {
    KOKKOS_IF_ON_DEVICE((store_on_device(place);))
    KOKKOS_IF_ON_HOST((__builtin_memcpy(__builtin_assume_aligned(place, sizeof(Pack)), this, sizeof(Pack));))
  }

  /// Rounds numbers to elements.
  KOKKOS_INLINE_FUNCTION static Pack of(const accumulator_t<V>* values) {
    Pack pack;
    KRAIT_UNROLLED
    for (int i = 0; i < units; ++i) {
      if constexpr (in_pairs) {
        pack.units_[i] = cuda::pack<V>(values[std::ptrdiff_t{2} * i], values[std::ptrdiff_t{2} * i + 1]);
      } else {
        pack.units_[i] = static_cast<V>(values[i]);
      }
    }
    return pack;
  }

  /// Element i as a number.
  KOKKOS_INLINE_FUNCTION accumulator_t<V> operator[](int i) const {
    if constexpr (in_pairs) {
      return cuda::unpack<V>(units_[i / 2], i % 2);
    } else {
      return static_cast<accumulator_t<V>>(units_[i]);
    }
  }

 private:
  /// Compilers put loads together as they should, but not all stores.
  KOKKOS_INLINE_FUNCTION void store_on_device(V* place) const {
#if defined(__CUDA_ARCH__)
    constexpr int words = sizeof(Pack) / sizeof(std::uint32_t);
    if constexpr (words == 2 || words == 4) {
      const std::size_t to = __cvta_generic_to_global(place);
      std::uint32_t word[words];
      memcpy(word, this, sizeof(word));
      if constexpr (words == 4) {
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(word[0]), "r"(word[1]), "r"(word[2]),
                     "r"(word[3])
                     : "memory");
      } else {
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(word[0]), "r"(word[1]) : "memory");
      }
      return;
    }
#endif
    *reinterpret_cast<Pack*>(place) = *this;
  }

  static constexpr int units = in_pairs ? N / 2 : N;
  Unit units_[units];
};

/// to[i] = from[i] for i < N, in as few accesses as packs allow.
template <int N, Scalar V>
KOKKOS_INLINE_FUNCTION void load_packs(const V* from, accumulator_t<V>* to) {
  constexpr int each = N < pack_size<V> ? N : pack_size<V>;
  static_assert(N % each == 0);
  KRAIT_UNROLLED
  for (int i = 0; i < N; i += each) {
    const auto pack = Pack<V, each>::load(from + i);
    KRAIT_UNROLLED
    for (int j = 0; j < each; ++j) to[i + j] = pack[j];
  }
}

/// to[i] = from[i] for i < N, rounded.
template <int N, Scalar V>
KOKKOS_INLINE_FUNCTION void store_packs(const accumulator_t<V>* from, V* to) {
  constexpr int each = N < pack_size<V> ? N : pack_size<V>;
  static_assert(N % each == 0);
  KRAIT_UNROLLED
  for (int i = 0; i < N; i += each) Pack<V, each>::of(from + i).store(to + i);
}

/// Whether the tensor, if it is given, is made of whole packs: rows of them along the last index, at unit stride.
template <class View>
bool has_whole_packs(const View& view) {
  constexpr std::int64_t each = pack_size<typename View::non_const_value_type>;
  constexpr std::size_t last = View::rank() - 1;
  if (view.data() == nullptr) return true;
  if (!is_aligned(view.data()) || view.stride(last) != 1) return false;
  for (std::size_t r = 0; r + 1 < View::rank(); ++r) {  // none of a single index
    if (view.extent(r) > 1 && static_cast<std::int64_t>(view.stride(r)) % each != 0) return false;
  }
  return static_cast<std::int64_t>(view.extent(last)) % each == 0;
}

}  // namespace krait::tile
