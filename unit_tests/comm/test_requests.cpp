// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Requests, errors, counters and labels.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <comm/family_under_test.hpp>
#include <comm/pattern.hpp>
#include <krait/comm/collectives.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/scalars.hpp>
#include <sstream>
#include <support/callback_recorder.hpp>
#include <support/ranks.hpp>
#include <thread>

namespace krait::test {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using testing::ThrowsMessage;

static_assert(!std::is_copy_constructible_v<Request> && !std::is_copy_assignable_v<Request>);
static_assert(std::is_nothrow_move_constructible_v<Request> && std::is_nothrow_move_assignable_v<Request>);

struct Gather {
  Buffer<float> recv;
  Request request;
};

Gather start_gather(const Communicator& comm, int round) {
  const Exec exec;
  auto recv = room<float>(8 * comm.size());
  // The View that is sent has no other owner than the request.
  auto request = comm::all_gather(exec, comm, upload(pattern<float>(comm.rank(), round, 8)), recv);
  return {recv, std::move(request)};
}

bool is_gathered(const Communicator& comm, const Buffer<float>& recv, int round) {
  std::vector<float> wanted;
  for (int from = 0; from < comm.size(); ++from) append(wanted, pattern<float>(from, round, 8));
  return same_bits(download(recv), wanted);
}

TEST(Request, WaitIsIdempotent) {
  const auto comm = all_ranks();
  Gather gather = start_gather(comm, 1);
  gather.request.wait();
  EXPECT_TRUE(is_gathered(comm, gather.recv, 1));
  EXPECT_NO_THROW(gather.request.wait());
  EXPECT_TRUE(gather.request.test());
  Request().wait();
}

TEST(Request, TestEndsWithoutWait) {
  const auto comm = all_ranks();
  Gather gather = start_gather(comm, 2);
  while (!gather.request.test()) {
  }
  EXPECT_TRUE(is_gathered(comm, gather.recv, 2));
}

TEST(Request, DestructorWaits) {
  const auto comm = all_ranks();
  Buffer<float> recv;
  {
    const Gather gather = start_gather(comm, 3);
    recv = gather.recv;
  }
  EXPECT_TRUE(is_gathered(comm, recv, 3));
}

TEST(Request, MovesAndAssignmentWaitsForTheOldOne) {
  const auto comm = all_ranks();
  Gather first = start_gather(comm, 4);
  Gather second = start_gather(comm, 5);
  Request moved(std::move(first.request));
  EXPECT_TRUE(first.request.test());  // NOLINT(bugprone-use-after-move): a moved-from request has nothing to wait for
  moved = std::move(second.request);
  EXPECT_TRUE(is_gathered(comm, first.recv, 4));
  Request& alias = moved;
  moved = std::move(alias);
  moved.wait();
  EXPECT_TRUE(is_gathered(comm, second.recv, 5));
}

TEST(Request, ManyOutstandingInAnyOrder) {
  const auto comm = all_ranks();
  std::vector<Gather> gathers;
  for (int round = 0; round < 12; ++round) gathers.push_back(start_gather(comm, round));
  for (int i = 0; i < 12; ++i) {
    const int round = comm.rank() % 2 == 0 ? i : 11 - i;
    Gather& gather = gathers[static_cast<std::size_t>(round)];
    gather.request.wait();
    EXPECT_TRUE(is_gathered(comm, gather.recv, round)) << round;
  }
}

TEST(Request, MoreThanAllTags) {
  const auto comm = all_ranks();
  comm.state()->tags_used = static_cast<std::uint32_t>(impl::user_tags) - 2;
  for (int round = 0; round < 5; ++round) {
    Gather gather = start_gather(comm, round);
    gather.request.wait();
    EXPECT_TRUE(is_gathered(comm, gather.recv, round)) << round;
  }
}

// Two reductions of two stages each. Ranks wait in different orders, some sit in a barrier: each must also work for the
// other request, or nobody would come further.
TEST(Request, StagesOfOthersGoOnWhileWaiting) {
  const Exec exec;
  const auto comm = all_ranks();
  comm.state()->limits.all_reduce_gathered_bytes = 0;
  const auto part = comm.split(0, comm.rank());
  const auto a = upload(std::vector<double>(50, 1.0));
  const auto b = upload(std::vector<double>(50, 2.0));
  const auto c = upload(std::vector<double>(50, 3.0));
  Request first = comm::all_reduce(exec, comm, a, a, Reduction::sum);
  Request second = comm::all_reduce(exec, comm, b, b, Reduction::sum);
  Request third = comm::all_reduce(exec, part, c, c, Reduction::sum);
  switch (comm.rank() % 3) {
    case 0:
      first.wait();
      second.wait();
      third.wait();
      comm.barrier();
      break;
    case 1:
      comm.barrier();
      third.wait();
      second.wait();
      first.wait();
      break;
    default:
      third.wait();
      comm.barrier();
      first.wait();
      second.wait();
  }
  const double size = comm.size();
  EXPECT_THAT(download(a), Each(size));
  EXPECT_THAT(download(b), Each(2 * size));
  EXPECT_THAT(download(c), Each(3 * size));
}

std::vector<std::string> own_fences(const CallbackRecorder& recorder) {
  std::vector<std::string> labels;
  for (const auto& fence : recorder.fences()) {
    if (fence.label.starts_with("krait::")) labels.push_back(fence.label);
  }
  return labels;
}

// The own part is a copy on the operation's instance, so other readers must wait for that instance: on a device by
// order, on a host by a fence.
TEST(Request, FencesForOtherReadersOnly) {
  const Exec exec;
  const auto comm = all_ranks();
  const std::string complete = "krait::comm: received data complete";
  const auto fences_of = [&](auto&& wait) {
    Gather gather = start_gather(comm, 6);
    const CallbackRecorder recorder;
    wait(gather.request);
    EXPECT_TRUE(is_gathered(comm, gather.recv, 6));
    return own_fences(recorder);
  };
  EXPECT_THAT(fences_of([&](Request& request) { request.wait_on(exec); }), IsEmpty());
  EXPECT_THAT(fences_of([](Request& request) { request.wait(); }), ElementsAre(complete));
  const auto other = Kokkos::Experimental::partition_space(exec, 1)[0];
  if (krait::impl::queue_of(exec) != nullptr) {
    EXPECT_THAT(fences_of([&](Request& request) { request.wait_on(other); }), IsEmpty());
  } else if (!(other == exec)) {
    EXPECT_THAT(fences_of([&](Request& request) { request.wait_on(other); }), ElementsAre(complete));
  }
}

TEST(Failure, OfARequestNobodyWaitedForComesWithTheNextOperation) {
  const Exec exec;
  const auto comm = Communicator::self();
  {
    const Request never = comm::recv(exec, comm, room<float>(3), 0, 9);
  }
  EXPECT_THAT([&] { comm.barrier(); },
              ThrowsMessage<CommError>(AllOf(HasSubstr("an earlier request"), HasSubstr("tag 9"))));
  EXPECT_NO_THROW(comm.barrier());
}

TEST(Failure, OfAMessageToOneself) {
  const Exec exec;
  const auto comm = Communicator::self();
  Request receive = comm::recv(exec, comm, room<float>(3), 0, 2);
  Request send = comm::send(exec, comm, room<float>(4), 0, 2);
  EXPECT_THAT([&] { receive.wait(); },
              ThrowsMessage<CommError>(AllOf(HasSubstr("16 bytes"), HasSubstr("expected 12"))));
  EXPECT_NO_THROW(receive.wait());
  EXPECT_THROW(send.wait(), CommError);
}

// The request is given up after a while, and its memory with it; the test ends because nobody waits for ever.
TEST(Failure, AnExceptionDoesNotWaitForMessagesThatNeverCome) {
  const Exec exec;
  const auto world = all_ranks();
  const auto comm = world.split(0, 0);
  comm.state()->limits.unwinding_seconds = 0.05;
  const int source = (comm.rank() + 1) % comm.size();
  const auto interrupted = [&] {
    const Request never = comm::recv(exec, comm, room<float>(3), source);
    throw std::runtime_error("user error");
  };
  EXPECT_THAT(interrupted, ThrowsMessage<std::runtime_error>("user error"));
  EXPECT_THAT([&] { comm.barrier(); }, ThrowsMessage<CommError>(HasSubstr("given up while an exception was thrown")));
  world.barrier();
}

TEST(BadArguments, AreRefusedBeforeAnyMessage) {
  const Exec exec;
  const auto comm = all_ranks();
  const int size = comm.size();
  const auto ranks = static_cast<std::size_t>(size);
  const auto four = room<float>(4);
  const auto three = room<float>(3);
  const std::vector<std::int64_t> ones(ranks, 1);
  const auto one_each = room<float>(size);
  const auto also_one_each = room<float>(size);

  EXPECT_THAT([&] { comm::send(exec, comm, four, size).wait(); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::comm::send: dest is " + std::to_string(size) +
                                                   ", expected a rank from 0 to " + std::to_string(size - 1))));
  EXPECT_THAT([&] { comm::recv(exec, comm, four, -1).wait(); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::comm::recv: source is -1")));
  EXPECT_THAT([&] { comm::send(exec, comm, four, 0, 16384).wait(); },
              ThrowsMessage<ConfigError>(HasSubstr("tag is 16384, expected 0 to 16383")));
  EXPECT_THAT([&] { comm::broadcast(exec, comm, four, size).wait(); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::comm::broadcast: root is")));
  EXPECT_THAT([&] { comm::all_gather(exec, comm, three, room<float>(3 * size + 1)).wait(); },
              ThrowsMessage<ShapeError>(AllOf(HasSubstr("krait::comm::all_gather: recv has"), HasSubstr("expected"))));
  EXPECT_THAT([&] { comm::all_to_all(exec, comm, one_each, room<float>(2 * size)).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::comm::all_to_all: recv has")));
  if (size > 1) {
    EXPECT_THAT([&] { comm::all_to_all(exec, comm, room<float>(size + 1), room<float>(size + 1)).wait(); },
                ThrowsMessage<ShapeError>(HasSubstr("expected a multiple of the")));
  }

  std::vector<std::int64_t> counts = ones;
  counts.back() = 2;
  EXPECT_THAT([&] { comm::all_to_all_v(exec, comm, one_each, counts, also_one_each, ones).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("send_counts add up to " + std::to_string(size + 1) +
                                                  ", expected the buffer's " + std::to_string(size))));
  counts.back() = -1;
  EXPECT_THAT([&] { comm::all_to_all_v(exec, comm, one_each, ones, also_one_each, counts).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("recv_counts[" + std::to_string(size - 1) + "] is -1")));
  counts.push_back(1);
  EXPECT_THAT([&] { comm::all_gather_v(exec, comm, room<float>(1), one_each, counts).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("counts, expected one for each of the")));
  EXPECT_THAT([&] { comm::all_gather_v(exec, comm, room<float>(2), one_each, ones).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::comm::all_gather_v: send has 2 elements, expected 1")));
  EXPECT_THAT([&] { comm::all_to_all(exec, comm, one_each, one_each).wait(); },
              ThrowsMessage<ConfigError>(HasSubstr("send and recv overlap")));
  EXPECT_THAT([&] { comm::all_reduce(exec, comm, four, three, Reduction::sum).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::comm::all_reduce: recv has 3 elements, expected 4")));
  EXPECT_THAT([&] { comm::reduce_scatter(exec, comm, room<float>(3 * size - 1), three, Reduction::sum).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::comm::reduce_scatter: send has")));
  const Kokkos::View<float*, Kokkos::LayoutStride, Exec::memory_space> every_second = Kokkos::subview(
      Kokkos::View<float**, Kokkos::LayoutLeft, Exec::memory_space>("krait::test::wide", 2, 4), 1, Kokkos::ALL);
  EXPECT_THAT([&] { comm::send(exec, comm, every_second, 0).wait(); },
              ThrowsMessage<ShapeError>(HasSubstr("send has stride 2, expected contiguous elements")));
  EXPECT_THAT([&] { static_cast<void>(comm.split(-1, 0)); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::Communicator::split: color is -1")));

  EXPECT_EQ(comm.counters(), CommCounters());
  comm.barrier();
  EXPECT_TRUE(is_gathered(
      comm,
      [&] {
        Gather gather = start_gather(comm, 1);
        gather.request.wait();
        return gather.recv;
      }(),
      1));
}

TEST(Counters, AreExact) {
  const Exec exec;
  auto comm = all_ranks();
  const std::int64_t size = comm.size();
  const std::int64_t others = size - 1;
  const auto rank = static_cast<std::int64_t>(comm.rank());

  comm::all_to_all(exec, comm, room<float>(5 * size), room<float>(5 * size)).wait();
  EXPECT_EQ(comm.counters()[CommOperation::all_to_all],
            (OperationCounters{1, others, others * 20, others, others * 20}));

  // Rank r sends r elements to everybody.
  std::vector<std::int64_t> to(static_cast<std::size_t>(size), rank);
  std::vector<std::int64_t> from(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) from[static_cast<std::size_t>(i)] = i;
  const std::int64_t sum = size * (size - 1) / 2;
  comm::all_to_all_v(exec, comm, room<double>(rank * size), to, room<double>(sum), from).wait();
  const std::int64_t sources = others - (rank == 0 ? 0 : 1);  // rank 0 has nothing to send
  EXPECT_EQ(comm.counters()[CommOperation::all_to_all_v],
            (OperationCounters{1, rank == 0 ? 0 : others, others * rank * 8, sources, (sum - rank) * 8}));

  comm::broadcast(exec, comm, room<bfloat16>(11), 0).wait();
  EXPECT_EQ(comm.counters()[CommOperation::broadcast],
            rank == 0 ? (OperationCounters{1, others, others * 22, 0, 0}) : (OperationCounters{1, 0, 0, 1, 22}));

  const std::int64_t one = size > 1 ? 1 : 0;
  comm::shift(exec, comm, room<float>(3), room<float>(3), 1).wait();
  comm::shift(exec, comm, room<float>(3), room<float>(3), static_cast<int>(size)).wait();
  EXPECT_EQ(comm.counters()[CommOperation::shift], (OperationCounters{2, one, one * 12, one, one * 12}));

  comm::all_gather(exec, comm, room<float>(2), room<float>(2 * size)).wait();
  EXPECT_EQ(comm.counters()[CommOperation::all_gather], (OperationCounters{1, others, others * 8, others, others * 8}));

  comm::reduce_scatter(exec, comm, room<float>(2 * size), room<float>(2), Reduction::sum).wait();
  EXPECT_EQ(comm.counters()[CommOperation::reduce_scatter],
            (OperationCounters{1, others, others * 8, others, others * 8}));

  comm.barrier();
  const CommCounters counters = comm.counters();
  EXPECT_EQ(counters[CommOperation::barrier].calls, 1);
  EXPECT_EQ(counters.total().calls, 8);
  std::ostringstream text;
  text << counters;
  EXPECT_THAT(text.str(), AllOf(HasSubstr("all_to_all_v"), HasSubstr("bytes received"), Not(HasSubstr("all_reduce"))));

  comm.reset_counters();
  EXPECT_EQ(comm.counters(), CommCounters());
}

// Everybody waits for a rank that comes late.
TEST(Counters, TimeOfWaiting) {
  const Exec exec;
  auto comm = all_ranks();
  using Clock = std::chrono::steady_clock;
  const auto others_wait = [&](CommOperation operation, const auto& call) {
    comm.barrier();
    comm.reset_counters();
    if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    const auto begin = Clock::now();
    call();
    const std::chrono::duration<double> elapsed = Clock::now() - begin;
    const CommCounters counters = comm.counters();
    EXPECT_EQ(counters.total().seconds_waited, counters[operation].seconds_waited);
    EXPECT_LE(counters[operation].seconds_waited, elapsed.count());
    if (comm.rank() != 0) {
      EXPECT_GT(counters[operation].seconds_waited, 0.05);
    }
  };
  others_wait(CommOperation::broadcast, [&] { comm::broadcast(exec, comm, room<float>(3), 0).wait(); });
  if (!is_queued(comm)) {
    others_wait(CommOperation::broadcast, [&] { comm::broadcast(exec, comm, room<float>(3), 0).wait_on(exec); });
  }
  others_wait(CommOperation::broadcast, [&] { static_cast<void>(comm::broadcast(exec, comm, room<float>(3), 0)); });
  others_wait(CommOperation::barrier, [&] { comm.barrier(); });
  if (!is_queued(comm)) {
    others_wait(CommOperation::all_reduce,
                [&] { comm::all_reduce(exec, comm, room<float>(3), room<float>(3), Reduction::sum).wait(); });
  }

  // What has arrived before is not waited for.
  comm.reset_counters();
  Gather gather = start_gather(comm, 1);
  while (!gather.request.test()) std::this_thread::yield();
  gather.request.wait();
  EXPECT_EQ(comm.counters().total().seconds_waited, 0);
}

TEST(Counters, ASplitMessageCountsOnce) {
  const Exec exec;
  const auto comm = all_ranks();
  comm.state()->limits.message_bytes = 16;
  comm::all_gather(exec, comm, room<float>(100), room<float>(100 * comm.size())).wait();
  EXPECT_EQ(comm.counters()[CommOperation::all_gather].messages_sent, comm.size() - 1);
}

TEST(Labels, NameOperationAndPath) {
  const Exec exec;
  auto comm = all_ranks();
  const std::string family = comm.backend();
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(comm.size()), 1);
  const auto a = room<float>(comm.size());
  const auto b = room<float>(comm.size());
  const CallbackRecorder recorder;
  comm::all_to_all_v(exec, comm, a, ones, b, ones).wait();
  comm.force_host_buffer(true);
  comm::all_to_all_v(exec, comm, a, ones, b, ones).wait();
  comm::all_reduce(exec, comm, a, b, Reduction::sum).wait();
  const auto self = Communicator::self();
  comm::broadcast(exec, self, a, 0).wait();

  EXPECT_THAT(recorder.regions(), Contains("krait::comm::broadcast[self]"));
  if (family == "mpi") {
    const bool direct = krait::impl::is_host_space<Exec::memory_space> || comm.gpu_aware_mpi();
    EXPECT_THAT(recorder.regions(),
                Contains(direct ? "krait::comm::all_to_all_v[mpi,direct]" : "krait::comm::all_to_all_v[mpi,staged]"));
  } else {
    EXPECT_THAT(recorder.regions(), Contains("krait::comm::all_to_all_v[" + family + "]"));
  }
  if (family != "self") {
    EXPECT_THAT(recorder.regions(), Contains("krait::comm::all_to_all_v[mpi,staged]"));
  }
  EXPECT_THAT(recorder.foreign_labels(), IsEmpty());
  // Kokkos fences for itself too; before 5.2 it names the memory space.
  for (const auto& fence : recorder.fences())
    EXPECT_THAT(fence.label, AnyOf(StartsWith("krait::"), HasSubstr("Kokkos"), StartsWith("HostSpace::")));
}

void repeat(const Exec& exec, const Communicator& comm, const Buffer<float>& a, const Buffer<float>& b) {
  comm::all_to_all(exec, comm, a, b).wait_on(exec);
  Request first = comm::all_reduce(exec, comm, a, b, Reduction::sum);
  Request second = comm::reduce_scatter(exec, comm, b, Kokkos::subview(a, std::pair<int, int>(0, 10)), Reduction::max);
  second.wait_on(exec);
  first.wait_on(exec);
}

TEST(SteadyState, AllocatesNothing) {
  const Exec exec;
  auto comm = all_ranks();
  const auto a = room<float>(10 * comm.size());
  const auto b = room<float>(10 * comm.size());
  for (const bool staged : {false, true}) {
    comm.force_host_buffer(staged);
    for (int warm_up = 0; warm_up < 3; ++warm_up) repeat(exec, comm, a, b);
    const CallbackRecorder recorder;
    repeat(exec, comm, a, b);
    EXPECT_THAT(recorder.allocations(), IsEmpty()) << staged;
  }
}

TEST(SteadyState, DirectExchangeFencesOnceBeforeItsMessages) {
  const Exec exec;
  const auto comm = all_ranks();
  const auto a = room<float>(10 * comm.size());
  const auto b = room<float>(10 * comm.size());
  const CallbackRecorder recorder;
  comm::all_to_all(exec, comm, a, b).wait_on(exec);
  const bool ordered = is_queued(comm) && krait::impl::queue_of(exec) != nullptr;
  if (comm.size() == 1 || ordered) {
    EXPECT_THAT(own_fences(recorder), IsEmpty());
  } else if (krait::impl::is_host_space<Exec::memory_space> || comm.gpu_aware_mpi()) {
    EXPECT_THAT(own_fences(recorder), ElementsAre("krait::comm: data ready before send"));
  }
}

}  // namespace
}  // namespace krait::test
