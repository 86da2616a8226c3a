// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The one place that knows Kokkos versions and backends by name.

#include <Kokkos_Core.hpp>
#include <Kokkos_Profiling_ScopedRegion.hpp>
#include <type_traits>

static_assert(KOKKOS_VERSION >= 40600 && KOKKOS_VERSION < 60000, "Krait needs Kokkos 4.6 or newer, below 6");

namespace krait::impl {

/// True where a team is one host thread: scratch is ordinary memory and vector lanes come from the compiler.
template <class Exec>
inline constexpr bool is_host_execution =
    Kokkos::SpaceAccessibility<Kokkos::HostSpace, typename Exec::memory_space>::accessible;

/// True where a team is warps of 32 threads that can be asked for tensor cores (compute capability 8.0 and above).
#if defined(KOKKOS_ENABLE_CUDA) && !defined(KOKKOS_ARCH_MAXWELL) && !defined(KOKKOS_ARCH_PASCAL) && \
    !defined(KOKKOS_ARCH_VOLTA) && !defined(KOKKOS_ARCH_TURING75)
template <class Exec>
inline constexpr bool has_tensor_cores = std::is_same_v<Exec, Kokkos::Cuda>;
#else
template <class Exec>
inline constexpr bool has_tensor_cores = false;
#endif

/// Scratch level to use for tiles: level 0 is on-chip memory on a GPU; on a host both levels are ordinary memory and
/// level 1 is the roomy one.
template <class Exec>
inline constexpr int tile_scratch_level = is_host_execution<Exec> ? 1 : 0;

/// The device queue behind an instance, a cudaStream_t; null where the host itself runs the work.
template <class Exec>
void* queue_of([[maybe_unused]] const Exec& exec) {
#ifdef KOKKOS_ENABLE_CUDA
  if constexpr (std::is_same_v<Exec, Kokkos::Cuda>) return exec.cuda_stream();
#endif
  return nullptr;
}

/// The CUDA device that an instance runs on; -1 where it is none.
template <class Exec>
int cuda_device_of([[maybe_unused]] const Exec& exec) {
#ifdef KOKKOS_ENABLE_CUDA
  if constexpr (std::is_same_v<Exec, Kokkos::Cuda>) return exec.cuda_device();
#endif
  return -1;
}

/// Short backend name for labels.
template <class Exec>
constexpr const char* backend_name() {
  return is_host_execution<Exec> ? "host" : "device";
}

}  // namespace krait::impl
