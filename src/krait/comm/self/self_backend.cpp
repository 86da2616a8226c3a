// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/self/self_backend.hpp>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <krait/core/error.hpp>

namespace krait::impl {
namespace {

class SelfMessages final : public Messages {
 public:
  SelfMessages(std::shared_ptr<Mailbox> mailbox, int tag) : mailbox_(std::move(mailbox)), tag_(tag) {}
  SelfMessages(const SelfMessages&) = delete;
  SelfMessages& operator=(const SelfMessages&) = delete;
  ~SelfMessages() override { withdraw(); }

  void receive(int /*peer*/, std::byte* data, std::int64_t bytes) override {
    SelfMail& mail = meet([](const SelfMail& other) { return other.to == nullptr; });
    mail.to = data;
    mail.room = bytes;
    deliver(mail);
  }

  void send(int /*peer*/, const std::byte* data, std::int64_t bytes) override {
    SelfMail& mail = meet([](const SelfMail& other) { return other.from == nullptr; });
    mail.from = data;
    mail.bytes = bytes;
    deliver(mail);
  }

  bool test() override {
    for (const auto& mail : own_) {
      if (!mail->done) return false;
      KRAIT_REQUIRE(CommError, mail->bytes == mail->room, "krait::comm[self]: received ", mail->bytes,
                    " bytes with tag ", mail->tag, ", expected ", mail->room);
    }
    return true;
  }

  void wait() override {
    KRAIT_REQUIRE(CommError, test(), "krait::comm[self]: waiting for a message with tag ", tag_,
                  " of this rank to itself, whose other side was never started");
  }

  bool abandon() noexcept override {
    withdraw();
    return true;
  }

 private:
  /// The oldest mail that waits for this side, or a new one.
  template <class Waits>
  SelfMail& meet(Waits&& waits) {
    const auto found = std::find_if(mailbox_->begin(), mailbox_->end(),
                                    [&](const auto& mail) { return mail->tag == tag_ && waits(*mail); });
    if (found != mailbox_->end()) {
      own_.push_back(*found);
      mailbox_->erase(found);
    } else {
      own_.push_back(std::make_shared<SelfMail>());
      own_.back()->tag = tag_;
      mailbox_->push_back(own_.back());
    }
    return *own_.back();
  }

  static void deliver(SelfMail& mail) {
    if (mail.from == nullptr || mail.to == nullptr) return;
    if (mail.bytes == mail.room) std::memcpy(mail.to, mail.from, static_cast<std::size_t>(mail.bytes));
    mail.done = true;
  }

  void withdraw() noexcept {
    std::erase_if(*mailbox_,
                  [this](const auto& mail) { return std::find(own_.begin(), own_.end(), mail) != own_.end(); });
  }

  std::shared_ptr<Mailbox> mailbox_;
  int tag_;
  std::vector<std::shared_ptr<SelfMail>> own_;
};

}  // namespace

std::unique_ptr<Messages> SelfBackend::open(int tag, std::int64_t /*limit*/) {
  return std::make_unique<SelfMessages>(mailbox_, tag);
}

std::unique_ptr<Messages> SelfBackend::barrier() { return std::make_unique<SelfMessages>(mailbox_, 0); }

std::shared_ptr<Backend> SelfBackend::split(int /*color*/, int /*key*/) { return std::make_shared<SelfBackend>(); }

}  // namespace krait::impl
