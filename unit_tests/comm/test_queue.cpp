// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Messages that are ordered on a device queue, tried without a device; and how ranks find each other for them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <comm/family_under_test.hpp>
#include <comm/pattern.hpp>
#include <krait/comm/bootstrap.hpp>
#include <krait/comm/collectives.hpp>
#include <krait/comm/environment.hpp>
#include <krait/comm/family.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <span>
#include <stdexcept>
#include <support/ranks.hpp>

namespace krait::test {
namespace {

using krait::impl::Backend;
using krait::impl::comm_family;
using krait::impl::CommFamily;
using krait::impl::Messages;
using krait::impl::QueueBackend;
using krait::impl::QueuedMessages;
using krait::impl::Reach;
using krait::impl::sharing_ranks;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

/// What was asked of the messages, and whether the device has got there.
struct Log {
  std::vector<std::string> lines;
  bool done = false;
};

class LoggedMessages final : public QueuedMessages {
 public:
  explicit LoggedMessages(Log& log) : log_(log) {}
  void receive(int peer, std::byte* /*data*/, std::int64_t /*bytes*/) override {
    log_.lines.push_back("receive " + std::to_string(peer));
  }
  void send(int peer, const std::byte* /*data*/, std::int64_t /*bytes*/) override {
    log_.lines.push_back("send " + std::to_string(peer));
  }
  void start(void* /*queue*/) override { log_.lines.emplace_back("start"); }
  void precede(void* /*queue*/) override { log_.lines.emplace_back("precede"); }
  bool test() override { return log_.done; }
  void wait() override {
    log_.lines.emplace_back("wait");
    log_.done = true;
  }
  bool abandon() noexcept override {
    log_.lines.emplace_back("abandon");
    return true;
  }

 private:
  Log& log_;
};

class LoggedQueue final : public QueueBackend {
 public:
  explicit LoggedQueue(Log& log) : log_(log) {}
  [[nodiscard]] const char* name() const override { return "logged"; }
  [[nodiscard]] bool takes(Reach /*reach*/) const override { return true; }
  [[nodiscard]] std::unique_ptr<QueuedMessages> open() override { return std::make_unique<LoggedMessages>(log_); }
  [[nodiscard]] std::shared_ptr<QueueBackend> over(Backend& /*part*/) const override { return nullptr; }

 private:
  Log& log_;
};

/// Rank 0 of two, whose other rank does not exist.
class HalfOfTwo final : public Backend {
 public:
  [[nodiscard]] Place place() const override { return {.rank = 0, .size = 2}; }
  [[nodiscard]] const char* name() const override { return "half"; }
  [[nodiscard]] bool may_read_device_memory() const override { return false; }
  [[nodiscard]] std::unique_ptr<Messages> open(int, std::int64_t) override { throw std::logic_error("no messages"); }
  [[nodiscard]] std::unique_ptr<Messages> barrier() override { throw std::logic_error("no messages"); }
  [[nodiscard]] std::shared_ptr<Backend> split(int, int) override { throw std::logic_error("no messages"); }
};

class Queue : public testing::Test {
 protected:
  Queue() : comm(std::make_shared<HalfOfTwo>()) { comm.state()->queue = std::make_shared<LoggedQueue>(log); }
  Request gather() const { return comm::all_gather(exec, comm, room<float>(4), room<float>(8)); }

  Exec exec;
  Log log;
  Communicator comm;
};

TEST_F(Queue, WaitOnOrdersAndDoesNotWait) {
  Request request = gather();
  EXPECT_THAT(log.lines, ElementsAre("receive 1", "send 1", "start"));
  request.wait_on(exec);
  EXPECT_THAT(log.lines, ElementsAre("receive 1", "send 1", "start", "precede"));
  EXPECT_FALSE(log.done);
  EXPECT_EQ(comm.counters().total().seconds_waited, 0);
}

TEST_F(Queue, TestAsksTheDeviceAndOrdersNothingBefore) {
  Request request = gather();
  log.lines.clear();
  EXPECT_FALSE(request.test());
  EXPECT_THAT(log.lines, IsEmpty());
  log.done = true;
  EXPECT_TRUE(request.test());
  EXPECT_THAT(log.lines, ElementsAre("precede"));
}

TEST_F(Queue, WaitIsOfTheHost) {
  Request request = gather();
  log.lines.clear();
  request.wait();
  EXPECT_THAT(log.lines, ElementsAre("wait", "precede"));
}

// Otherwise the order of messages would follow the order of waits, which may differ from rank to rank.
TEST_F(Queue, AllStagesAreEnqueuedAtTheStart) {
  comm.state()->limits.all_reduce_gathered_bytes = 0;
  const auto view = room<double>(10);
  Request request = comm::all_reduce(exec, comm, view, view, Reduction::sum);
  EXPECT_THAT(log.lines,
              ElementsAre("receive 1", "send 1", "start", "precede", "receive 1", "send 1", "start", "precede"));
  EXPECT_FALSE(request.test());
  log.done = true;
  EXPECT_TRUE(request.test());
}

TEST_F(Queue, IsGivenUpWhileAnExceptionUnwinds) {
  comm.state()->limits.unwinding_seconds = 0.01;
  const auto interrupted = [&] {
    const Request never = gather();
    throw std::runtime_error("user error");
  };
  EXPECT_THAT(interrupted, ThrowsMessage<std::runtime_error>("user error"));
  EXPECT_EQ(log.lines.back(), "abandon");
}

TEST_F(Queue, HostBuffersAndTagsLeaveIt) {
  EXPECT_STREQ(comm.backend(), "logged");
  EXPECT_EQ(krait::impl::comm_label(*comm.state(), CommOperation::shift, Reach::device), "krait::comm::shift[logged]");
  EXPECT_EQ(krait::impl::comm_label(*comm.state(), CommOperation::send, Reach::device), "krait::comm::send[half]");
  comm.force_host_buffer(true);
  EXPECT_EQ(krait::impl::comm_label(*comm.state(), CommOperation::shift, Reach::device), "krait::comm::shift[half]");
}

static_assert(krait::impl::reach_of_spaces<Kokkos::HostSpace> == Reach::host);
#ifdef KOKKOS_ENABLE_CUDA
static_assert(krait::impl::reach_of_spaces<Kokkos::CudaSpace, Kokkos::CudaSpace> == Reach::device);
static_assert(krait::impl::reach_of_spaces<Kokkos::CudaSpace, Kokkos::HostSpace> == Reach::mixed);
static_assert(krait::impl::reach_of_spaces<Kokkos::CudaHostPinnedSpace> == Reach::host);
#endif

TEST(Bootstrap, BytesOfRankZeroGoToAll) {
  const auto world = Communicator::world(Exec());
  std::array<int, 30> numbers{};
  for (int i = 0; i < 30; ++i) numbers[static_cast<std::size_t>(i)] = 7 * i + 1000 * world.rank();
  krait::impl::broadcast_bytes(*world.state()->backend, std::as_writable_bytes(std::span(numbers)));
  for (int i = 0; i < 30; ++i) EXPECT_EQ(numbers[static_cast<std::size_t>(i)], 7 * i);
}

TEST(Bootstrap, TextsOfAllRanksInOrder) {
  const auto world = Communicator::world(Exec());
  const auto text = [](int rank) { return std::string(static_cast<std::size_t>(rank), 'x') + std::to_string(rank); };
  std::vector<std::string> wanted;
  for (int rank = 0; rank < world.size(); ++rank) wanted.push_back(text(rank));
  EXPECT_EQ(krait::impl::gather_texts(*world.state()->backend, text(world.rank())), wanted);
  EXPECT_THAT([&] { krait::impl::gather_texts(*world.state()->backend, std::string(256, 'x')); },
              ThrowsMessage<ConfigError>(HasSubstr("256 characters, expected fewer than 256")));
}

TEST(Family, IsNamed) {
  EXPECT_EQ(comm_family(""), CommFamily::automatic);
  EXPECT_EQ(comm_family("auto"), CommFamily::automatic);
  EXPECT_EQ(comm_family("mpi"), CommFamily::mpi);
  EXPECT_EQ(comm_family("nccl"), CommFamily::nccl);
  EXPECT_THAT([] { comm_family("NCCL"); },
              ThrowsMessage<ConfigError>(HasSubstr("KRAIT_COMM is 'NCCL', expected auto, mpi or nccl")));
}

TEST(Family, RanksThatShareADevice) {
  EXPECT_EQ(sharing_ranks({"node-a 1", "node-b 1", "node-a 2"}), std::nullopt);
  EXPECT_EQ(sharing_ranks({"node-a 1", "node-b 1", "node-b 2", "node-b 1"}), std::pair(1, 3));
}

TEST(Devices, OfRanks) {
  EXPECT_EQ(krait::impl::device_of_rank(0, 1), 0);
  EXPECT_EQ(krait::impl::device_of_rank(3, 4), 3);
  EXPECT_EQ(krait::impl::device_of_rank(5, 4), 1);
}

}  // namespace
}  // namespace krait::test
