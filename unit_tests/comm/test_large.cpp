// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <comm/pattern.hpp>
#include <krait/comm/point_to_point.hpp>
#include <support/ranks.hpp>

namespace krait::test {
namespace {

std::int64_t available_memory() { return static_cast<std::int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE); }

// Pages that nobody writes cost the sender nothing: the two ranks need the message once.
TEST(Large, MessageOfMoreThanTwoToThe31Bytes) {
  const Kokkos::DefaultHostExecutionSpace exec;
  const auto comm = Communicator::world(exec);
  constexpr std::int64_t bytes = (std::int64_t{1} << 31) + 4242;
  const bool fits = available_memory() > bytes + bytes / 2;
  if (!on_all_ranks(fits && comm.size() == 2)) GTEST_SKIP() << "needs two ranks and 3.2 GB of free memory";
  const std::array<std::int64_t, 5> marks = {0, 1 << 20, (std::int64_t{1} << 31) - 128, std::int64_t{1} << 31,
                                             bytes - 1};
  const Kokkos::View<unsigned char*, Kokkos::HostSpace> data(
      Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait::test::large"), bytes);
  if (comm.rank() == 0) {
    for (std::size_t i = 0; i < marks.size(); ++i) data(marks[i]) = static_cast<unsigned char>(i + 1);
    comm::send(exec, comm, data, 1).wait();
  } else {
    comm::recv(exec, comm, data, 0).wait();
    for (std::size_t i = 0; i < marks.size(); ++i) EXPECT_EQ(data(marks[i]), i + 1) << marks[i];
    EXPECT_EQ(std::count_if(data.data(), data.data() + bytes, [](unsigned char value) { return value != 0; }), 5);
  }
  EXPECT_EQ(comm.counters().total().messages_sent, comm.rank() == 0 ? 1 : 0);
  EXPECT_EQ(comm.counters().total().bytes_received, comm.rank() == 0 ? 0 : bytes);
}

}  // namespace
}  // namespace krait::test
