// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <krait/comm/collectives.hpp>
#include <krait/comm/communicator.hpp>

namespace genome {

/// Runs `work` on rank 0. A krait::FileError or krait::ConfigError from there is thrown on every rank, so that a bad
/// file stops all of them together. Collective.
void on_first_rank(const krait::Communicator& world, const std::function<void()>& work);

/// Gives rank 0's bytes to all ranks, however many there are. Collective.
template <class Container>
void share(const krait::Communicator& world, Container& bytes) {
  static_assert(sizeof(typename Container::value_type) == 1);
  const Kokkos::DefaultHostExecutionSpace host;
  const Kokkos::View<std::int64_t*, Kokkos::HostSpace> size("krait_genome::size", 1);
  size(0) = static_cast<std::int64_t>(bytes.size());
  krait::comm::broadcast(host, world, size, 0).wait();
  bytes.resize(static_cast<std::size_t>(size(0)));
  const Kokkos::View<std::byte*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>> message(
      reinterpret_cast<std::byte*>(bytes.data()), bytes.size());
  krait::comm::broadcast(host, world, message, 0).wait();
}

}  // namespace genome
