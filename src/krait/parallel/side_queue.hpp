// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>

#include <krait/comm/queue_mark.hpp>
#include <krait/core/kokkos_shims.hpp>

namespace krait::impl {

/// An instance beside another one, for what must not hold it up: what is enqueued here while the other goes on, only
/// those wait for that ask for it. A queue of its own on a device; a host has one, the other itself.
template <class Exec>
class SideQueue {
 public:
  explicit SideQueue(const Exec& exec) : instance_(beside(exec)) {}

  /// The instance, where what is enqueued from now on comes after all that `exec` holds now.
  const Exec& after(const Exec& exec) {
    if constexpr (is_host_execution<Exec>) {
      instance_ = exec;
    } else {
      mark_.record(queue_of(exec));
      mark_.precede(queue_of(instance_));
    }
    return instance_;
  }

 private:
  static Exec beside(const Exec& exec) {
    if constexpr (is_host_execution<Exec>) {
      return exec;
    } else {
      return Kokkos::Experimental::partition_space(exec, 1)[0];
    }
  }

  Exec instance_;
  QueueMark mark_;
};

}  // namespace krait::impl
