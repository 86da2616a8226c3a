// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The two ends of an exchange: an execution-space instance and the Views it reads and writes, behind an interface of
/// bytes, so that the exchange itself is compiled once.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <typeinfo>
#include <utility>

#include <krait/comm/backend.hpp>
#include <krait/core/kokkos_shims.hpp>

namespace krait::impl {

class Endpoints {
 public:
  virtual ~Endpoints() = default;
  [[nodiscard]] const std::byte* send_data() const { return send_; }
  [[nodiscard]] std::byte* recv_data() const { return recv_; }
  /// Who can read and write both ends.
  [[nodiscard]] virtual Reach reach() const = 0;
  [[nodiscard]] virtual bool is_instance(const std::type_info& space, const void* exec) const = 0;
  /// The device queue of the instance, or null.
  [[nodiscard]] virtual void* queue() const = 0;
  virtual void fence(const char* label) const = 0;
  // Copies enqueued on the instance.
  virtual void copy_out(std::byte* buffer, std::int64_t send_offset, std::int64_t bytes) const = 0;
  virtual void copy_in(std::int64_t recv_offset, const std::byte* buffer, std::int64_t bytes) const = 0;
  virtual void copy_across(std::int64_t recv_offset, std::int64_t send_offset, std::int64_t bytes) const = 0;

 protected:
  Endpoints(const void* send, void* recv)
      : send_(static_cast<const std::byte*>(send)), recv_(static_cast<std::byte*>(recv)) {}

 private:
  const std::byte* send_;
  std::byte* recv_;
};

template <class Space>
inline constexpr bool is_host_space = Kokkos::SpaceAccessibility<Kokkos::HostSpace, Space>::accessible;

template <class... Spaces>
inline constexpr Reach reach_of_spaces = (is_host_space<Spaces> && ...)    ? Reach::host
                                         : (!is_host_space<Spaces> && ...) ? Reach::device
                                                                           : Reach::mixed;

/// Holds copies of the Views as they were given: a managed View stays alive.
template <class Exec, class SendView, class RecvView>
class EndpointsOf final : public Endpoints {
  using SendSpace = typename SendView::memory_space;
  using RecvSpace = typename RecvView::memory_space;

 public:
  EndpointsOf(const Exec& exec, SendView send, RecvView recv)
      : Endpoints(send.data(), recv.data()), exec_(exec), send_(std::move(send)), recv_(std::move(recv)) {}

  [[nodiscard]] Reach reach() const override { return reach_of_spaces<SendSpace, RecvSpace>; }
  [[nodiscard]] bool is_instance(const std::type_info& space, const void* exec) const override {
    return space == typeid(Exec) && *static_cast<const Exec*>(exec) == exec_;
  }
  [[nodiscard]] void* queue() const override { return queue_of(exec_); }
  void fence(const char* label) const override { exec_.fence(label); }
  void copy_out(std::byte* buffer, std::int64_t send_offset, std::int64_t bytes) const override {
    copy<Kokkos::HostSpace, SendSpace>(buffer, send_data() + send_offset, bytes);
  }
  void copy_in(std::int64_t recv_offset, const std::byte* buffer, std::int64_t bytes) const override {
    copy<RecvSpace, Kokkos::HostSpace>(recv_data() + recv_offset, buffer, bytes);
  }
  void copy_across(std::int64_t recv_offset, std::int64_t send_offset, std::int64_t bytes) const override {
    copy<RecvSpace, SendSpace>(recv_data() + recv_offset, send_data() + send_offset, bytes);
  }

 private:
  template <class ToSpace, class FromSpace>
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const {
    using Unmanaged = Kokkos::MemoryTraits<Kokkos::Unmanaged>;
    const auto extent = static_cast<std::size_t>(bytes);
    Kokkos::deep_copy(exec_, Kokkos::View<std::byte*, ToSpace, Unmanaged>(to, extent),
                      Kokkos::View<const std::byte*, FromSpace, Unmanaged>(from, extent));
  }

  Exec exec_;
  SendView send_;
  RecvView recv_;
};

template <class Exec, class SendView, class RecvView>
std::shared_ptr<const Endpoints> make_endpoints(const Exec& exec, const SendView& send, const RecvView& recv) {
  return std::make_shared<EndpointsOf<Exec, SendView, RecvView>>(exec, send, recv);
}

}  // namespace krait::impl
