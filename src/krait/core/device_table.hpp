// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Host tables and their device copies, built once and shared.

#include <Kokkos_Core.hpp>
#include <any>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <typeindex>
#include <vector>

namespace krait::impl {

/// Values built at most once per memory space: the device copies of host tables that many layers share.
class PerSpace {
 public:
  /// Returns the value for Space, building it with `build()` at the first request.
  template <class Space, class Build>
  auto get(Build&& build) -> decltype(build()) {
    const std::lock_guard lock(mutex_);
    std::any& slot = slots_[std::type_index(typeid(Space))];
    if (!slot.has_value()) {
      slot = build();
      ++builds_;
    }
    return std::any_cast<decltype(build())>(slot);
  }

  /// How many times a value was built, for tests.
  [[nodiscard]] std::size_t builds() const {
    const std::lock_guard lock(mutex_);
    return builds_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::type_index, std::any> slots_;
  std::size_t builds_ = 0;
};

/// Copies a host table to MemorySpace. Blocks until the copy is done; used once per table, never in a steady state.
template <class MemorySpace, class V>
Kokkos::View<const V*, MemorySpace> upload_table(const std::string& label, const std::vector<V>& host) {
  Kokkos::View<V*, MemorySpace> device(Kokkos::view_alloc(Kokkos::WithoutInitializing, label), host.size());
  Kokkos::deep_copy(device, Kokkos::View<const V*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>(
                                host.data(), host.size()));
  return device;
}

}  // namespace krait::impl
