// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdlib>
#include <krait/comm/state.hpp>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include <comm/family_under_test.hpp>

namespace krait::test {
namespace {

using krait::impl::Backend;
using krait::impl::Messages;
using krait::impl::QueueBackend;
using krait::impl::QueuedMessages;

class DoubleMessages final : public QueuedMessages {
 public:
  explicit DoubleMessages(std::unique_ptr<Messages> messages) : messages_(std::move(messages)) {}
  void receive(int peer, std::byte* data, std::int64_t bytes) override { messages_->receive(peer, data, bytes); }
  void send(int peer, const std::byte* data, std::int64_t bytes) override { messages_->send(peer, data, bytes); }
  void start(void* /*queue*/) override {}
  void precede(void* /*queue*/) override { messages_->wait(); }
  bool test() override { return messages_->test(); }
  void wait() override { messages_->wait(); }
  bool abandon() noexcept override { return messages_->abandon(); }

 private:
  std::unique_ptr<Messages> messages_;
};

std::shared_ptr<QueueBackend> queue_double(Backend& ranks);

/// A stand-in for NCCL where there is no device: moves any memory, has no tags, and matches the messages of two ranks
/// in the order in which they were started.
class DoubleBackend final : public QueueBackend {
 public:
  /// \param ranks  of its own
  explicit DoubleBackend(std::shared_ptr<Backend> ranks) : ranks_(std::move(ranks)) {}
  [[nodiscard]] const char* name() const override { return "queue"; }
  [[nodiscard]] bool takes(krait::impl::Reach /*reach*/) const override { return true; }
  [[nodiscard]] std::unique_ptr<QueuedMessages> open() override {
    constexpr int the_only_tag = 0;
    return std::make_unique<DoubleMessages>(ranks_->open(the_only_tag, std::numeric_limits<int>::max()));
  }
  [[nodiscard]] std::shared_ptr<QueueBackend> over(Backend& part) const override { return queue_double(part); }

 private:
  std::shared_ptr<Backend> ranks_;
};

std::shared_ptr<QueueBackend> queue_double(Backend& ranks) {
  return std::make_shared<DoubleBackend>(ranks.split(0, ranks.place().rank));
}

}  // namespace

Communicator all_ranks() {
  auto comm = Communicator::world(Exec());
  const char* const family = std::getenv("KRAIT_TEST_FAMILY");
  if (family != nullptr && std::string_view(family) == "queue") {
    comm.state()->queue = queue_double(*comm.state()->backend);
  }
  return comm;
}

bool is_queued(const Communicator& comm) { return comm.state()->queue != nullptr && comm.size() > 1; }

}  // namespace krait::test
