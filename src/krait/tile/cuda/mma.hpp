// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The instructions of a warp: conversions to the operands of tensor cores, ldmatrix, mma.sync. On a GPU they are the
/// machine's own, on a host they do the same lane by lane. Compute capability 8.0 and above.

#include <Kokkos_Core.hpp>
#include <bit>
#include <cstdint>
#include <type_traits>

#include <krait/core/scalars.hpp>
#include <krait/tile/cuda/fragments.hpp>
#include <krait/tile/cuda/warp.hpp>

namespace krait::tile::cuda {

/// Two numbers, rounded to nearest, as the halves of a register: the first is the lower.
template <class E>
KOKKOS_INLINE_FUNCTION std::uint32_t pack(float first, float second) {
  static_assert(std::is_same_v<E, bfloat16> || std::is_same_v<E, float16>);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t result;
  if constexpr (std::is_same_v<E, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  }
  return result;
#else
  return static_cast<std::uint32_t>(E(first).bits()) | static_cast<std::uint32_t>(E(second).bits()) << 16;
#endif
}

/// The half of a register as a number.
template <class E>
KOKKOS_INLINE_FUNCTION float unpack(std::uint32_t pair, int half) {
  const auto bits = static_cast<std::uint16_t>(half == 0 ? pair & 0xffffU : pair >> 16);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<E, float16>) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
    return result;
  }
#endif
  return static_cast<float>(E::from_bits(bits));
}

/// A number in TF32: 10 bits behind the point, the nearest, ties away from zero.
KOKKOS_INLINE_FUNCTION std::uint32_t round_to_tf32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
  return result;
#else
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return (bits & 0x7f800000U) == 0x7f800000U ? bits : (bits + 0x1000U) & 0xffffe000U;
#endif
}

/// ldmatrix.x4: four 8 x 8 matrices from the eight elements that each lane points to, 16-byte aligned. The pointers lie
/// on chip or not, as the caller knows.
template <bool OnChip, bool Transposed, class Exec>
KOKKOS_INLINE_FUNCTION void load_matrices([[maybe_unused]] const Warp<Exec>& warp,
                                          const std::uint16_t* const (&rows)[Warp<Exec>::slots],
                                          std::uint32_t (&registers)[Warp<Exec>::slots][4]) {
  if constexpr (Warp<Exec>::emulated) {
    for (int s = 0; s < warp_size; ++s) {
      for (int i = 0; i < 4; ++i) {
        const auto element = [&](int part) -> std::uint32_t {
          const int along = s % 4 * 2 + part;
          return Transposed ? rows[8 * i + along][s / 4] : rows[8 * i + s / 4][along];
        };
        registers[s][i] = element(0) | element(1) << 16;
      }
    }
  } else {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t(&r)[4] = registers[0];
    if constexpr (OnChip) {
      const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(rows[0]));
      if constexpr (Transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address));
      } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(address));
      }
    } else {
      const int lane = warp.lane(0);
      const auto mine = reinterpret_cast<unsigned long long>(rows[0]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        std::uint32_t parts[2];
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          const int along = lane % 4 * 2 + part;
          const int owner = 8 * i + (Transposed ? along : lane / 4);
          const auto* row = reinterpret_cast<const std::uint16_t*>(__shfl_sync(0xffffffffU, mine, owner));
          parts[part] = row[Transposed ? lane / 4 : along];
        }
        r[i] = parts[0] | parts[1] << 16;
      }
    }
#endif
  }
}

namespace impl {

/// mma.sync of the operands' type, lane by lane. As in the hardware, products are exact and sums are in single
/// precision; the order of the sums is not specified there.
template <class E>
void emulate_mma(float (&d)[warp_size][4], const std::uint32_t (&a)[warp_size][4],
                 const std::uint32_t (&b)[warp_size][2]) {
  constexpr int inner = mma_inner<E>;
  float left[mma_rows][inner], right[inner][mma_columns];
  const auto value = [](std::uint32_t word, int part) {
    if constexpr (sizeof(E) == 2) {
      return unpack<E>(word, part);
    } else {
      return std::bit_cast<float>(word & 0xffffe000U);
    }
  };
  for (int lane = 0; lane < warp_size; ++lane) {
    for (int part = 0; part < register_elements<E>; ++part) {
      for (int i = 0; i < 4; ++i) {
        const Place at = a_place<E>(lane, i, part);
        left[at.row][at.column] = value(a[lane][i], part);
      }
      for (int i = 0; i < 2; ++i) {
        const Place at = b_place<E>(lane, i, part);
        right[at.row][at.column] = value(b[lane][i], part);
      }
    }
  }
  for (int lane = 0; lane < warp_size; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = d_place(lane, i);
      for (int k = 0; k < inner; ++k) d[lane][i] += left[at.row][k] * right[k][at.column];
    }
  }
}

}  // namespace impl

/// d += a * b by a warp, with operands of type E; float means TF32.
template <class E, class Exec>
KOKKOS_INLINE_FUNCTION void mma(const Warp<Exec>&, float (&d)[Warp<Exec>::slots][4],
                                const std::uint32_t (&a)[Warp<Exec>::slots][4],
                                const std::uint32_t (&b)[Warp<Exec>::slots][2]) {
  if constexpr (Warp<Exec>::emulated) {
    KOKKOS_IF_ON_HOST((impl::emulate_mma<E>(d, a, b);))
  } else {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float(&s)[4] = d[0];
    if constexpr (std::is_same_v<E, bfloat16>) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
          "%2, %3};"
          : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
          : "r"(a[0][0]), "r"(a[0][1]), "r"(a[0][2]), "r"(a[0][3]), "r"(b[0][0]), "r"(b[0][1]));
    } else if constexpr (std::is_same_v<E, float16>) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
          "%2, %3};"
          : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
          : "r"(a[0][0]), "r"(a[0][1]), "r"(a[0][2]), "r"(a[0][3]), "r"(b[0][0]), "r"(b[0][1]));
    } else {
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
          "%2, %3};"
          : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
          : "r"(a[0][0]), "r"(a[0][1]), "r"(a[0][2]), "r"(a[0][3]), "r"(b[0][0]), "r"(b[0][1]));
    }
#endif
  }
}

}  // namespace krait::tile::cuda
