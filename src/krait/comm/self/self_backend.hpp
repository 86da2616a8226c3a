// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <list>
#include <memory>

#include <krait/comm/backend.hpp>

namespace krait::impl {

/// A message of this rank to itself; either side may come first.
struct SelfMail {
  int tag = 0;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  std::int64_t bytes = 0;
  std::int64_t room = 0;
  bool done = false;
};

using Mailbox = std::list<std::shared_ptr<SelfMail>>;

/// One rank, without MPI.
class SelfBackend final : public Backend {
 public:
  [[nodiscard]] Place place() const override { return {}; }
  [[nodiscard]] const char* name() const override { return "self"; }
  [[nodiscard]] bool may_read_device_memory() const override { return false; }
  [[nodiscard]] std::unique_ptr<Messages> open(int tag, std::int64_t limit) override;
  [[nodiscard]] std::unique_ptr<Messages> barrier() override;
  [[nodiscard]] std::shared_ptr<Backend> split(int color, int key) override;

 private:
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
};

}  // namespace krait::impl
