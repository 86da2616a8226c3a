// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Reductions must equal the plain loop over ranks in ascending order, bit for bit.

#include <gtest/gtest.h>

#include <cmath>
#include <comm/family_under_test.hpp>
#include <comm/pattern.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/scalars.hpp>
#include <limits>
#include <support/ranks.hpp>

namespace krait::test {
namespace {

static_assert(Reducible<float> && Reducible<double> && Reducible<std::int64_t>);
static_assert(!Reducible<bfloat16> && !Reducible<float16> && !Reducible<std::byte>);

/// Numbers of very different size, so that another order of summation gives other bits.
template <class T>
std::vector<T> numbers(int rank, std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::uint64_t>(i);
    const double value = normal(11, static_cast<std::uint64_t>(rank), index);
    const double scale = std::exp2(std::floor(20 * uniform(12, static_cast<std::uint64_t>(rank), index)));
    const double wide = std::is_unsigned_v<T> ? std::abs(value * scale) : value * scale;
    values[static_cast<std::size_t>(i)] = static_cast<T>(wide);
  }
  return values;
}

template <class T>
T combine(T a, T b, Reduction reduction) {
  if (reduction == Reduction::sum) return a + b;
  return reduction == Reduction::max ? std::max(a, b) : std::min(a, b);
}

template <class T>
std::vector<T> in_ascending_order(int ranks, std::int64_t count, Reduction reduction) {
  std::vector<T> result = numbers<T>(0, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<T> next = numbers<T>(rank, count);
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = combine(result[i], next[i], reduction);
  }
  return result;
}

template <class T>
bool all_reduce_is_right(const Communicator& comm, std::int64_t count, Reduction reduction) {
  const Exec exec;
  const auto send = upload(numbers<T>(comm.rank(), count));
  const auto recv = room<T>(count);
  comm::all_reduce(exec, comm, send, recv, reduction).wait();
  const auto wanted = in_ascending_order<T>(comm.size(), count, reduction);
  bool good = same_bits(download(recv), wanted);
  comm::all_reduce(exec, comm, send, send, reduction).wait_on(exec);
  good = good && same_bits(download(send), wanted);
  return good;
}

template <class T>
bool reduce_scatter_is_right(const Communicator& comm, std::int64_t count, Reduction reduction) {
  const Exec exec;
  const auto send = upload(numbers<T>(comm.rank(), count * comm.size()));
  const auto recv = room<T>(count);
  comm::reduce_scatter(exec, comm, send, recv, reduction).wait();
  const auto all = in_ascending_order<T>(comm.size(), count * comm.size(), reduction);
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(count * comm.rank());
  return same_bits(download(recv), std::vector<T>(begin, begin + static_cast<std::ptrdiff_t>(count)));
}

template <class T>
void expect_reductions(const Communicator& comm) {
  for (const Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
    for (const std::int64_t count : {0, 1, 3, 1000}) {
      EXPECT_TRUE_ON_ALL_RANKS(all_reduce_is_right<T>(comm, count, reduction)) << count;
      EXPECT_TRUE_ON_ALL_RANKS(reduce_scatter_is_right<T>(comm, count, reduction)) << count;
    }
  }
}

template <class T>
class Reductions : public testing::Test {};
using Scalars = testing::Types<float, double, std::int32_t, std::int64_t, std::uint32_t, std::uint64_t>;
TYPED_TEST_SUITE(Reductions, Scalars);

TYPED_TEST(Reductions, GatheredAndCombined) { expect_reductions<TypeParam>(all_ranks()); }

TYPED_TEST(Reductions, InBlocks) {
  const auto comm = all_ranks();
  comm.state()->limits.all_reduce_gathered_bytes = 0;
  expect_reductions<TypeParam>(comm);
}

TYPED_TEST(Reductions, InBlocksThroughHostBuffersInPieces) {
  auto comm = all_ranks();
  comm.state()->limits.all_reduce_gathered_bytes = 0;
  comm.state()->limits.message_bytes = 24;
  comm.force_host_buffer(true);
  expect_reductions<TypeParam>(comm);
}

TYPED_TEST(Reductions, AloneWithoutMpi) { expect_reductions<TypeParam>(Communicator::self()); }

TEST(Reductions, LargeArraysGoInBlocks) {
  const auto comm = all_ranks();
  const std::int64_t count = 100000;
  EXPECT_TRUE_ON_ALL_RANKS(all_reduce_is_right<float>(comm, count, Reduction::sum));
  const std::int64_t blocks = comm.size() == 1 ? 0 : 2 * 2 * (comm.size() - 1);  // two calls of two stages
  EXPECT_EQ(comm.counters()[CommOperation::all_reduce].messages_sent, blocks);
}

template <class Reduce>
void expect_nan_comes_through(const Communicator& comm, int culprit, Reduce&& reduce) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto view = upload(std::vector<double>{comm.rank() == culprit ? nan : 1.0, 1.0});
  reduce(view);
  const auto got = download(view);
  EXPECT_TRUE(std::isnan(got[0])) << culprit;
  EXPECT_FALSE(std::isnan(got[1])) << culprit;
}

TEST(Reductions, ANotANumberOnAnyRankComesThrough) {
  const Exec exec;
  const auto comm = all_ranks();
  for (const Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
    for (int culprit = 0; culprit < comm.size(); ++culprit) {
      expect_nan_comes_through(comm, culprit, [&](const Buffer<double>& view) {
        comm::all_reduce(exec, comm, view, view, reduction).wait();
      });
    }
  }
}

}  // namespace
}  // namespace krait::test
