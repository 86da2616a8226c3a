// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_NCCL

#include <memory>
#include <string>

#include <krait/comm/backend.hpp>
#include <krait/comm/bootstrap.hpp>

namespace krait::impl {

class NcclHandle;

/// Names machine and device as NCCL tells them apart: NCCL_HOSTID, or the machine's name, and the address on its bus.
std::string nccl_device_name(int device);

/// Messages by ncclSend and ncclRecv, a group for each exchange, on a stream of the communicator's own: groups follow
/// each other there in the order in which they were started, while the streams of the user go on.
class NcclBackend final : public QueueBackend {
 public:
  /// All ranks of `hosts` call it together; no two of them share a device.
  NcclBackend(Backend& hosts, int device);
  [[nodiscard]] const char* name() const override { return "nccl"; }
  /// Memory of the host is better off with MPI.
  [[nodiscard]] bool takes(Reach reach) const override { return reach == Reach::device; }
  [[nodiscard]] std::unique_ptr<QueuedMessages> open() override;
  [[nodiscard]] std::shared_ptr<QueueBackend> over(Backend& part) const override;

 private:
  int device_;
  std::shared_ptr<NcclHandle> handle_;  ///< null for one rank alone
};

}  // namespace krait::impl

#endif
