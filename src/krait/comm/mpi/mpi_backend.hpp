// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_MPI

#include <mpi.h>

#include <memory>

#include <krait/comm/backend.hpp>

namespace krait::impl {

/// Owns an MPI communicator whose errors are returned, not fatal. Freed at the end unless MPI has ended before.
class MpiHandle {
 public:
  /// Takes over a communicator that nobody else uses.
  explicit MpiHandle(MPI_Comm own);
  MpiHandle(const MpiHandle&) = delete;
  MpiHandle& operator=(const MpiHandle&) = delete;
  ~MpiHandle();
  [[nodiscard]] MPI_Comm get() const { return comm_; }

 private:
  MPI_Comm comm_;
};

/// Messages by MPI_Isend and MPI_Irecv. Exchanges with many ranks are pairs of them, posted together: sizes then need
/// no int, empty messages are left out, and memory stays where it is.
class MpiBackend final : public Backend {
 public:
  /// \param own  as MpiHandle
  explicit MpiBackend(MPI_Comm own);
  [[nodiscard]] Place place() const override { return place_; }
  [[nodiscard]] const char* name() const override { return "mpi"; }
  [[nodiscard]] bool may_read_device_memory() const override { return true; }
  [[nodiscard]] std::unique_ptr<Messages> open(int tag, std::int64_t limit) override;
  [[nodiscard]] std::unique_ptr<Messages> barrier() override;
  [[nodiscard]] std::shared_ptr<Backend> split(int color, int key) override;

 private:
  std::shared_ptr<MpiHandle> comm_;
  Place place_;
};

}  // namespace krait::impl

#endif
