// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Every operation that moves data, for every scalar, on every kind of communicator: bits must arrive where they
/// belong.

#include <gtest/gtest.h>

#include <comm/family_under_test.hpp>
#include <comm/pattern.hpp>
#include <cstddef>
#include <krait/comm/collectives.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/core/scalars.hpp>
#include <support/ranks.hpp>

namespace krait::test {
namespace {

/// Uneven, with zeros, on the own rank too.
std::int64_t block(int from, int to) { return (3 * from + 5 * to) % 4 * 7; }

std::vector<std::int64_t> send_counts(const Communicator& comm) {
  std::vector<std::int64_t> counts;
  for (int to = 0; to < comm.size(); ++to) counts.push_back(block(comm.rank(), to));
  return counts;
}

std::vector<std::int64_t> recv_counts(const Communicator& comm) {
  std::vector<std::int64_t> counts;
  for (int from = 0; from < comm.size(); ++from) counts.push_back(block(from, comm.rank()));
  return counts;
}

template <class T>
bool all_to_all_moves(const Communicator& comm, std::int64_t count) {
  const Exec exec;
  std::vector<T> mine;
  std::vector<T> wanted;
  for (int peer = 0; peer < comm.size(); ++peer) {
    append(mine, pattern<T>(comm.rank(), peer, count));
    append(wanted, pattern<T>(peer, comm.rank(), count));
  }
  const auto recv = room<T>(count * comm.size());
  comm::all_to_all(exec, comm, upload(mine), recv).wait();
  return same_bits(download(recv), wanted);
}

template <class T>
bool all_to_all_v_moves(const Communicator& comm) {
  const Exec exec;
  const auto to = send_counts(comm);
  const auto from = recv_counts(comm);
  std::vector<T> mine;
  std::vector<T> wanted;
  for (int peer = 0; peer < comm.size(); ++peer) {
    append(mine, pattern<T>(comm.rank(), peer, to[static_cast<std::size_t>(peer)]));
    append(wanted, pattern<T>(peer, comm.rank(), from[static_cast<std::size_t>(peer)]));
  }
  const auto recv = room<T>(static_cast<std::int64_t>(wanted.size()));
  comm::all_to_all_v(exec, comm, upload(mine), to, recv, from).wait_on(exec);
  return same_bits(download(recv), wanted);
}

/// The own block of recv keeps what the caller has put there.
template <class T>
bool all_to_all_v_leaves_own_block(const Communicator& comm) {
  const Exec exec;
  const auto to = send_counts(comm);
  const auto from = recv_counts(comm);
  std::vector<T> mine;
  std::vector<T> before;
  std::vector<T> wanted;
  for (int peer = 0; peer < comm.size(); ++peer) {
    const bool own = peer == comm.rank();
    const std::int64_t count = from[static_cast<std::size_t>(peer)];
    append(mine, pattern<T>(comm.rank(), peer, to[static_cast<std::size_t>(peer)]));
    append(before, pattern<T>(comm.size(), peer, count));
    append(wanted, pattern<T>(own ? comm.size() : peer, own ? peer : comm.rank(), count));
  }
  const auto recv = upload(before);
  comm::all_to_all_v(exec, comm, upload(mine), to, recv, from, comm::OwnBlock::in_place).wait_on(exec);
  return same_bits(download(recv), wanted);
}

template <class T>
bool all_gather_moves(const Communicator& comm, std::int64_t count) {
  const Exec exec;
  std::vector<T> wanted;
  for (int from = 0; from < comm.size(); ++from) append(wanted, pattern<T>(from, 0, count));
  const auto recv = room<T>(count * comm.size());
  comm::all_gather(exec, comm, upload(pattern<T>(comm.rank(), 0, count)), recv).wait();
  return same_bits(download(recv), wanted);
}

template <class T>
bool all_gather_v_moves(const Communicator& comm) {
  const Exec exec;
  std::vector<T> wanted;
  std::vector<std::int64_t> counts;
  for (int from = 0; from < comm.size(); ++from) {
    counts.push_back(block(from, 1));
    append(wanted, pattern<T>(from, 0, counts.back()));
  }
  const auto recv = room<T>(static_cast<std::int64_t>(wanted.size()));
  const auto send = upload(pattern<T>(comm.rank(), 0, counts[static_cast<std::size_t>(comm.rank())]));
  comm::all_gather_v(exec, comm, send, recv, counts).wait();
  return same_bits(download(recv), wanted);
}

template <class T>
bool broadcast_moves(const Communicator& comm, int root) {
  const Exec exec;
  const auto wanted = pattern<T>(root, 5, 33);
  const auto view = comm.rank() == root ? upload(wanted) : room<T>(33);
  comm::broadcast(exec, comm, view, root).wait();
  return same_bits(download(view), wanted);
}

template <class T>
bool shift_moves(const Communicator& comm, int distance) {
  const Exec exec;
  const int size = comm.size();
  const int from = ((comm.rank() - distance) % size + size) % size;
  const auto recv = room<T>(10 + from);
  comm::shift(exec, comm, upload(pattern<T>(comm.rank(), 0, 10 + comm.rank())), recv, distance).wait();
  return same_bits(download(recv), pattern<T>(from, 0, 10 + from));
}

/// Everybody sends two messages of different tag to everybody, this rank included; they are received in the other
/// order.
template <class T>
bool messages_move(const Communicator& comm) {
  const Exec exec;
  std::vector<Request> requests;
  std::vector<Buffer<T>> rooms;
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (const int tag : {4, 3}) {
      rooms.push_back(room<T>(tag * 5));
      requests.push_back(comm::recv(exec, comm, rooms.back(), peer, tag));
    }
  }
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (const int tag : {3, 4}) {
      requests.push_back(comm::send(exec, comm, upload(pattern<T>(comm.rank(), peer, tag * 5, tag)), peer, tag));
    }
  }
  wait_all(requests);
  bool good = true;
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (const int tag : {4, 3}) {
      const auto got = download(rooms[static_cast<std::size_t>(2 * peer + (tag == 4 ? 0 : 1))]);
      good = good && same_bits(got, pattern<T>(peer, comm.rank(), tag * 5, tag));
    }
  }
  return good;
}

template <class T>
void expect_all_operations_move(const Communicator& comm) {
  for (const std::int64_t count : {0, 1, 19}) {
    EXPECT_TRUE_ON_ALL_RANKS(all_to_all_moves<T>(comm, count)) << count;
    EXPECT_TRUE_ON_ALL_RANKS(all_gather_moves<T>(comm, count)) << count;
  }
  EXPECT_TRUE_ON_ALL_RANKS(all_to_all_v_moves<T>(comm));
  EXPECT_TRUE_ON_ALL_RANKS(all_to_all_v_leaves_own_block<T>(comm));
  EXPECT_TRUE_ON_ALL_RANKS(all_gather_v_moves<T>(comm));
  EXPECT_TRUE_ON_ALL_RANKS(messages_move<T>(comm));
  for (const int distance : {1, -1, 2, 0, comm.size(), -7}) {
    EXPECT_TRUE_ON_ALL_RANKS(shift_moves<T>(comm, distance)) << distance;
  }
  EXPECT_TRUE_ON_ALL_RANKS(broadcast_moves<T>(comm, 0));
  EXPECT_TRUE_ON_ALL_RANKS(broadcast_moves<T>(comm, comm.size() - 1));
}

template <class T>
class Movement : public testing::Test {};
using Scalars = testing::Types<float, double, bfloat16, float16, std::int32_t, std::int64_t, std::uint8_t, std::byte>;
TYPED_TEST_SUITE(Movement, Scalars);

TYPED_TEST(Movement, World) { expect_all_operations_move<TypeParam>(all_ranks()); }

TYPED_TEST(Movement, ThroughHostBuffers) {
  auto comm = all_ranks();
  comm.force_host_buffer(true);
  expect_all_operations_move<TypeParam>(comm);
}

TYPED_TEST(Movement, InTinyPieces) {
  const auto comm = all_ranks();
  comm.state()->limits.message_bytes = 8;
  expect_all_operations_move<TypeParam>(comm);
}

TYPED_TEST(Movement, AloneWithoutMpi) { expect_all_operations_move<TypeParam>(Communicator::self()); }

TEST(Split, GroupsOrderedByKey) {
  const auto world = all_ranks();
  const auto half = world.split(world.rank() % 2, -world.rank());
  const int members = (world.size() + (world.rank() % 2 == 0 ? 1 : 0)) / 2;
  EXPECT_EQ(half.size(), members);
  EXPECT_EQ(half.rank(), members - 1 - world.rank() / 2);
  EXPECT_STREQ(half.backend(), world.backend());
  // The groups differ in size, so they do not agree step by step: each rank judges for itself.
  EXPECT_TRUE(all_to_all_moves<float>(half, 5));
  EXPECT_TRUE(all_to_all_v_moves<double>(half));
  EXPECT_TRUE(shift_moves<float>(half, 1));
}

TEST(Split, GroupsOfOne) {
  const auto world = all_ranks();
  const auto alone = world.split(world.rank(), 0);
  EXPECT_EQ(alone.place(), (Place{0, 1}));
  expect_all_operations_move<float>(alone);
  expect_all_operations_move<bfloat16>(Communicator::self().split(3, 1));
}

TEST(Split, KeepsTheSwitches) {
  auto world = all_ranks();
  world.force_host_buffer(true);
  world.gpu_aware_mpi(true);
  const auto part = world.split(0, world.rank());
  EXPECT_TRUE(part.force_host_buffer());
  EXPECT_TRUE(part.gpu_aware_mpi());
  EXPECT_EQ(part.place(), world.place());
}

TEST(Communicator, IsAPlace) {
  const auto world = all_ranks();
  const Place place = world;
  EXPECT_EQ(place, world_place());
  EXPECT_EQ(Communicator::self().place(), Place{});
  EXPECT_STREQ(Communicator::self().backend(), "self");
}

TEST(Communicator, CopiesShareSwitchesAndCounters) {
  auto world = all_ranks();
  const auto copy = world;
  world.force_host_buffer(true);
  world.barrier();
  EXPECT_TRUE(copy.force_host_buffer());
  EXPECT_EQ(copy.counters()[CommOperation::barrier].calls, 1);
  EXPECT_FALSE(all_ranks().force_host_buffer());
}

}  // namespace
}  // namespace krait::test
