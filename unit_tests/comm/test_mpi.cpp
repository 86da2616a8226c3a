// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// What only MPI can do wrong.

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_MPI

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <comm/pattern.hpp>
#include <krait/comm/collectives.hpp>
#include <krait/comm/mpi/check.hpp>
#include <krait/comm/mpi/mpi_communicator.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/core/error.hpp>
#include <support/ranks.hpp>

namespace krait::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Mpi, AFailedCallThrowsWithItsText) {
  const auto comm = Communicator::world(Exec());
  const auto messages = comm.state()->backend->open(0, 1024);
  std::byte data{};
  EXPECT_THAT([&] { messages->send(comm.size() + 3, &data, 1); },
              ThrowsMessage<CommError>(
                  AllOf(HasSubstr("MPI_Isend(data"), HasSubstr("MPI_ERR_RANK"), HasSubstr("mpi_backend.cpp:"))));
  comm.barrier();
}

TEST(Mpi, MessagesOfAnotherSizeAreErrors) {
  const Exec exec;
  const auto comm = Communicator::world(exec);
  const int size = comm.size();
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  // The last rank expects less, then more than the first one sends.
  if (comm.rank() == 0) {
    comm::send(exec, comm, room<float>(8), size - 1).wait();
    comm::send(exec, comm, room<float>(8), size - 1).wait();
  }
  if (comm.rank() == size - 1) {
    EXPECT_THAT([&] { comm::recv(exec, comm, room<float>(4), 0).wait(); },
                ThrowsMessage<CommError>(AllOf(HasSubstr("receive of 16 bytes from rank 0"), HasSubstr("TRUNCATE"))));
    EXPECT_THAT([&] { comm::recv(exec, comm, room<float>(16), 0).wait(); },
                ThrowsMessage<CommError>(HasSubstr("receive of 64 bytes from rank 0: got 32 bytes")));
  }
  comm.barrier();
}

TEST(Mpi, TheCallersMessagesAreNotMet) {
  const Exec exec;
  const auto comm = mpi_communicator(MPI_COMM_WORLD);
  const int size = comm.size();
  const int next = (comm.rank() + 1) % size;
  const int previous = (comm.rank() + size - 1) % size;
  int sent = comm.rank();
  int received = -1;
  std::array<MPI_Request, 2> theirs{};
  KRAIT_CHECK_MPI(MPI_Irecv(&received, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &theirs[0]));
  const auto got = room<int>(1);
  comm::shift(exec, comm, upload(std::vector<int>{100 + comm.rank()}), got, 1).wait();
  KRAIT_CHECK_MPI(MPI_Isend(&sent, 1, MPI_INT, next, 7, MPI_COMM_WORLD, &theirs[1]));
  KRAIT_CHECK_MPI(MPI_Waitall(2, theirs.data(), MPI_STATUSES_IGNORE));
  EXPECT_EQ(received, previous);
  EXPECT_EQ(download(got).front(), 100 + previous);
}

TEST(Mpi, OneRankOfMpiEqualsSelf) {
  const Exec exec;
  const auto mpi = mpi_communicator(MPI_COMM_SELF);
  EXPECT_STREQ(mpi.backend(), "mpi");
  for (const Communicator& comm : {mpi, Communicator::self()}) {
    const auto recv = room<double>(9);
    comm::all_to_all(exec, comm, upload(pattern<double>(1, 2, 9)), recv).wait();
    EXPECT_TRUE(same_bits(download(recv), pattern<double>(1, 2, 9)));
    EXPECT_EQ(comm.counters()[CommOperation::all_to_all], (OperationCounters{1, 0, 0, 0, 0}));
  }
}

TEST(Mpi, TheNullCommunicatorIsRefused) {
  EXPECT_THAT([] { static_cast<void>(mpi_communicator(MPI_COMM_NULL)); },
              ThrowsMessage<ConfigError>(HasSubstr("comm is MPI_COMM_NULL")));
}

TEST(Mpi, ErrorsOfTheCallersCommunicatorStayTheCallers) {
  MPI_Errhandler before = MPI_ERRHANDLER_NULL;
  KRAIT_CHECK_MPI(MPI_Comm_get_errhandler(MPI_COMM_WORLD, &before));
  const auto comm = Communicator::world(Exec());
  MPI_Errhandler after = MPI_ERRHANDLER_NULL;
  KRAIT_CHECK_MPI(MPI_Comm_get_errhandler(MPI_COMM_WORLD, &after));
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace krait::test

#endif
