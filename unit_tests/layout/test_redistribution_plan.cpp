// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// The redistribution without a communicator: all ranks live here, and the exchange is made by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <krait/core/error.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/layout/token_copy.hpp>
#include <layout/exchange_cases.hpp>
#include <support/callback_recorder.hpp>
#include <support/random_view.hpp>

namespace {

using namespace krait::test;
using krait::Divisibility;
using krait::HeadPartition;
using krait::Redistribution;
using krait::SectionTable;
using krait::SequenceLayout;
using krait::Tensor;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Exec = Kokkos::DefaultExecutionSpace;
using krait::bfloat16;
template <class T>
using Buffer = Kokkos::View<T*>;
template <class T>
using Plan = Redistribution<T, Exec>;

template <class T>
Buffer<T> make_buffer(std::int64_t size) {
  return Buffer<T>("krait::test::buffer", static_cast<std::size_t>(size));
}

/// Moves block `to` of every rank's buffer to block `from` of that rank's: what an all-to-all does.
template <class T>
void exchange(const std::vector<Buffer<T>>& send, const std::vector<std::vector<std::int64_t>>& send_counts,
              const std::vector<Buffer<T>>& recv, const std::vector<std::vector<std::int64_t>>& recv_counts) {
  const std::size_t ranks = send.size();
  for (std::size_t to = 0; to < ranks; ++to) {
    std::int64_t recv_begin = 0;
    for (std::size_t from = 0; from < ranks; ++from) {
      std::int64_t send_begin = 0;
      for (std::size_t before = 0; before < to; ++before) send_begin += send_counts[from][before];
      const std::int64_t count = send_counts[from][to];
      ASSERT_EQ(count, recv_counts[to][from]);
      Kokkos::deep_copy(Kokkos::subview(recv[to], Kokkos::make_pair(recv_begin, recv_begin + count)),
                        Kokkos::subview(send[from], Kokkos::make_pair(send_begin, send_begin + count)));
      recv_begin += count;
    }
    ASSERT_EQ(recv_begin, static_cast<std::int64_t>(recv[to].size()));
  }
}

/// All ranks' plans and buffers of one exchange.
template <class T>
struct Ranks {
  std::vector<Plan<T>> plans;
  std::vector<Buffer<T>> sequence_buffers;
  std::vector<Buffer<T>> heads_buffers;
  std::vector<std::vector<std::int64_t>> sequence_counts;
  std::vector<std::vector<std::int64_t>> heads_counts;

  void add(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows) {
    plans.emplace_back(layout, table, rows);
    sequence_buffers.push_back(make_buffer<T>(plans.back().sequence_buffer_size()));
    heads_buffers.push_back(make_buffer<T>(plans.back().heads_buffer_size()));
    sequence_counts.push_back(plans.back().sequence_counts());
    heads_counts.push_back(plans.back().heads_counts());
  }
};

template <class T>
void check_enter(const std::vector<SequenceLayout>& layouts_of_ranks, const SectionTable& table, std::int64_t rows,
                 Strides strides) {
  const Exec exec;
  Ranks<T> ranks;
  std::vector<Shard<T>> shards;
  for (const auto& layout : layouts_of_ranks) {
    ranks.add(layout, table, rows);
    shards.push_back(make_shard<T>(strides, rows, layout.local_length(), table.width()));
    assign(shards.back(), expected_shard(layout, table, rows));
    ranks.plans.back().pack(exec, shards.back(), ranks.sequence_buffers.back());
  }
  exec.fence("krait::test: packed");
  const bool one = ranks.plans.size() == 1;
  if (!one) exchange(ranks.sequence_buffers, ranks.sequence_counts, ranks.heads_buffers, ranks.heads_counts);
  for (std::size_t r = 0; r < ranks.plans.size(); ++r) {
    const Plan<T>& plan = ranks.plans[r];
    const Tensor<T***, Exec> heads = one ? Tensor<T***, Exec>(shards[0]) : plan.heads_view(ranks.heads_buffers[r]);
    ASSERT_EQ(values_of(heads), expected_heads(plan.layout(), table, rows, false));
    const auto sequential = make_shard<T>(strides, rows, plan.layout().length(), plan.local_width());
    plan.to_sequential(exec, heads, sequential);
    ASSERT_EQ(values_of(sequential), expected_heads(plan.layout(), table, rows, true));
  }
}

template <class T>
void check_leave(const std::vector<SequenceLayout>& layouts_of_ranks, const SectionTable& table, std::int64_t rows,
                 Strides strides) {
  const Exec exec;
  Ranks<T> ranks;
  std::vector<Shard<T>> outs;
  for (const auto& layout : layouts_of_ranks) {
    ranks.add(layout, table, rows);
    const Plan<T>& plan = ranks.plans.back();
    outs.push_back(make_shard<T>(strides, rows, layout.local_length(), table.width()));
    const auto y = make_shard<T>(strides, rows, layout.length(), plan.local_width());
    assign(y, expected_heads(layout, table, rows, true));
    plan.from_sequential(exec, y, plan.leave_target(outs.back(), ranks.heads_buffers.back()));
  }
  exec.fence("krait::test: written");
  if (ranks.plans.size() > 1)
    exchange(ranks.heads_buffers, ranks.heads_counts, ranks.sequence_buffers, ranks.sequence_counts);
  for (std::size_t r = 0; r < ranks.plans.size(); ++r) {
    ranks.plans[r].unpack(exec, ranks.sequence_buffers[r], outs[r]);
    ASSERT_EQ(values_of(outs[r]), expected_shard(ranks.plans[r].layout(), table, rows));
  }
}

/// A rank's gradient of its column k: no two ranks' are alike, and sums of them are not exact.
double gradient(int rank, std::int64_t t, std::int64_t b, std::int64_t k) { return pattern(t, b, 512 * rank + k) / 3; }

/// The shard's sums: of every column the parts of the ranks that work on it, in ascending order and rounded once.
template <class T>
std::vector<double> expected_sums(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows) {
  using A = krait::accumulator_t<T>;
  std::vector<double> values;
  for (std::int64_t b = 0; b < rows; ++b) {
    for (std::int64_t i = 0; i < layout.local_length(); ++i) {
      std::vector<A> sums(static_cast<std::size_t>(table.width()), A(0));
      for (int r = 0; r < table.ranks(); ++r) {
        const Index columns = table.columns(r);
        for (std::size_t k = 0; k < columns.size(); ++k) {
          const auto part = static_cast<T>(gradient(r, layout.global_of_local(i), b, static_cast<std::int64_t>(k)));
          sums[static_cast<std::size_t>(columns[k])] += static_cast<A>(part);
        }
      }
      for (const A sum : sums) values.push_back(static_cast<double>(static_cast<T>(sum)));
    }
  }
  return values;
}

/// The backward of entering: every rank's gradients of its own columns go home, and are added up there.
template <class T>
void check_sum(const std::vector<SequenceLayout>& layouts_of_ranks, const SectionTable& table, std::int64_t rows,
               Strides strides) {
  const Exec exec;
  Ranks<T> ranks;
  std::vector<Shard<T>> outs;
  for (const auto& layout : layouts_of_ranks) {
    ranks.add(layout, table, rows);
    const Plan<T>& plan = ranks.plans.back();
    outs.push_back(make_shard<T>(strides, rows, layout.local_length(), table.width()));
    assign(outs.back(),
           std::vector<double>(outs.back().size(), std::numeric_limits<double>::quiet_NaN()));  // to be overwritten
    std::vector<double> gradients;
    for (std::int64_t b = 0; b < rows; ++b)
      for (std::int64_t t = 0; t < layout.length(); ++t)
        for (std::int64_t k = 0; k < plan.local_width(); ++k) gradients.push_back(gradient(layout.rank(), t, b, k));
    const auto in = make_shard<T>(strides, rows, layout.length(), plan.local_width());
    assign(in, gradients);
    plan.from_sequential(exec, in, plan.leave_target(outs.back(), ranks.heads_buffers.back()));
  }
  exec.fence("krait::test: written");
  if (ranks.plans.size() > 1)
    exchange(ranks.heads_buffers, ranks.heads_counts, ranks.sequence_buffers, ranks.sequence_counts);
  for (std::size_t r = 0; r < ranks.plans.size(); ++r) {
    ranks.plans[r].unpack_sum(exec, ranks.sequence_buffers[r], outs[r]);
    ASSERT_EQ(values_of(outs[r]), expected_sums<T>(ranks.plans[r].layout(), table, rows));
  }
}

template <class T>
void check_all(int ranks, std::int64_t length, std::int64_t rows, const krait::HeadShape& shape, Strides strides) {
  const HeadPartition heads({0, ranks}, shape, Divisibility::uneven);
  const std::size_t kinds = layouts({0, ranks}, length).size();
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    std::vector<SequenceLayout> of_ranks;
    for (int r = 0; r < ranks; ++r) of_ranks.push_back(layouts({r, ranks}, length)[kind]);
    SCOPED_TRACE(of_ranks[0].description());
    check_enter<T>(of_ranks, heads.projection_sections(true), rows, strides);
    check_enter<T>(of_ranks, heads.projection_sections(false), rows, strides);
    check_leave<T>(of_ranks, heads.inner_sections(), rows, strides);
    check_sum<T>(of_ranks, heads.projection_sections(false), rows, strides);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(RedistributionPlan, EveryNumberOfRanksAndHeads) {
  for (const int ranks : {1, 2, 3, 4, 5, 8}) {
    int shape_number = 0;
    for (const krait::HeadShape& shape : head_shapes()) {
      SCOPED_TRACE("ranks " + std::to_string(ranks) + ", heads " + std::to_string(shape.heads) + ", groups " +
                   std::to_string(shape.groups));
      check_all<float>(ranks, 2 * ranks + 5, shape_number % 2 == 0 ? 1 : 3, shape, all_strides[shape_number % 4]);
      ++shape_number;
    }
  }
}

TEST(RedistributionPlan, EveryLengthAlsoNoToken) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const int length : {0, 1, 2 * ranks - 1, 2 * ranks, 2 * ranks + 1}) {
      SCOPED_TRACE("ranks " + std::to_string(ranks) + ", length " + std::to_string(length));
      check_all<float>(ranks, length, 2, {4, 2, 2, 3}, Strides::batch_first);
    }
  }
}

TEST(RedistributionPlan, EveryScalarAndStride) {
  for (const Strides strides : all_strides) {
    check_all<float>(3, 11, 3, {6, 2, 2, 3}, strides);
    check_all<double>(3, 11, 3, {6, 2, 2, 3}, strides);
    check_all<bfloat16>(3, 11, 3, {6, 2, 2, 3}, strides);
    check_all<krait::float16>(3, 11, 3, {6, 2, 2, 3}, strides);
  }
}

// Two ranks share one group: its B and C come back twice (V6 of the layer's specification).
TEST(RedistributionPlan, GradientOfOnesCountsTheReaders) {
  const Exec exec;
  const HeadPartition heads({0, 2}, {4, 2, 1, 2});
  const auto layout = SequenceLayout::contiguous({0, 2}, 4);
  const Plan<float> plan(layout, heads.projection_sections(true), 1);
  const auto buffer = make_buffer<float>(plan.sequence_buffer_size());
  Kokkos::deep_copy(buffer, 1.0F);
  const auto out = make_shard<float>(Strides::batch_first, 1, 2, plan.width());
  plan.unpack_sum(exec, buffer, out);
  const auto values = values_of(out);
  ASSERT_EQ(plan.width(), 24);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool shared = 16 <= i % 24 && i % 24 < 20;
    EXPECT_EQ(values[i], shared ? 2 : 1) << "column " << i % 24;
  }
}

TEST(RedistributionPlan, ColumnsOfNoRankHaveNoGradient) {
  const SectionTable table({{"x", 5, 2, {{1, 1}, {1, 2}}}});  // columns 0, 1 and 6...9 are nobody's
  const Plan<float> plan(SequenceLayout::contiguous({0, 2}, 2), table, 1);
  const auto buffer = make_buffer<float>(plan.sequence_buffer_size());
  assign(buffer, {1, 2, 3, 4, 5, 6});  // rank 0: columns 2, 3; rank 1: columns 2...5
  const auto out = make_shard<float>(Strides::slice, 1, 1, 10);
  Kokkos::deep_copy(out, 9.0F);
  plan.unpack_sum(Exec(), buffer, out);
  EXPECT_THAT(values_of(out), testing::ElementsAre(0, 0, 4, 6, 5, 6, 0, 0, 0, 0));
  Kokkos::deep_copy(out, 9.0F);
  plan.unpack_sum_part(Exec(), buffer, out);  // of this plan
  EXPECT_THAT(values_of(out), testing::ElementsAre(9, 9, 4, 6, 5, 6, 9, 9, 9, 9));
}

// A row in several tensors: the same message, from any cut of the columns.
TEST(RedistributionPlan, PacksRowsInParts) {
  const Exec exec;
  for (const krait::HeadShape& shape : head_shapes()) {
    const HeadPartition heads({1, 4}, shape, Divisibility::uneven);
    const auto layout = SequenceLayout::zigzag({1, 4}, 11);
    const Plan<float> plan(layout, heads.backward_part(0, 1), 2);
    const auto shard = make_shard<float>(Strides::sequence_first, 2, layout.local_length(), plan.width());
    assign(shard, expected_shard(layout, plan.table(), 2));
    const auto want = make_buffer<float>(plan.sequence_buffer_size());
    plan.pack(exec, shard, want);
    for (const std::int64_t cut : {std::int64_t{0}, std::int64_t{1}, heads.projection_width(false), plan.width()}) {
      const auto got = make_buffer<float>(plan.sequence_buffer_size());
      const auto columns = [&](std::int64_t begin, std::int64_t end) {
        return Kokkos::subview(shard, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(begin, end));
      };
      plan.pack_columns(exec, columns(0, cut), 0, got);
      plan.pack_columns(exec, columns(cut, plan.width()), cut, got);
      EXPECT_EQ(values_of(got), values_of(want)) << "cut at " << cut;
    }
  }
}

// Rows of more memory than any cache has, which a host writes past it: pieces of every alignment, short and long.
TEST(RedistributionPlan, RowsThatDoNotFitTheCaches) {
  const Exec exec;
  const HeadPartition heads({0, 3}, {20, 63, 1, 33}, Divisibility::uneven);
  const std::int64_t length = 3 * 7000;
  const Plan<float> plan(SequenceLayout::contiguous({0, 3}, length), heads.inner_sections(), 1);
  const std::int64_t width = plan.width();
  ASSERT_GT(7000 * width * 4, std::int64_t{32} << 20);
  const auto shard = random_view<Kokkos::View<float***, Kokkos::LayoutRight>>(1, 1, 7000, width);
  const auto buffer = make_buffer<float>(plan.sequence_buffer_size());
  plan.pack(exec, shard, buffer);
  const auto back = poisoned_view<Kokkos::View<float***, Kokkos::LayoutRight>>(1, 7000, width);
  plan.unpack(exec, buffer, back);
  EXPECT_TRUE(values_of(back) == values_of(shard));
  // The last token of the last rank's part, by the definition of the buffer.
  const auto packed = values_of(buffer);
  const auto rows = values_of(shard);
  const std::int64_t last = plan.table().local_width(2);
  for (std::int64_t k = 1; k <= last; ++k)
    ASSERT_EQ(packed[packed.size() - static_cast<std::size_t>(k)], rows[rows.size() - static_cast<std::size_t>(k)]);
}

TEST(RedistributionPlan, PartsBringARowHomeTogether) {
  const Exec exec;
  const HeadPartition heads({1, 3}, {8, 3, 2, 2}, Divisibility::uneven);
  const auto layout = SequenceLayout::zigzag({1, 3}, 20);
  const auto shard = make_shard<float>(Strides::batch_first, 2, layout.local_length(), heads.d_inner());
  const auto back =
      poisoned_view<Kokkos::View<float***, Kokkos::LayoutRight>>(2, layout.local_length(), heads.d_inner());
  for (const std::int64_t k : {1, 0}) {
    const Plan<float> part(layout, heads.inner_block(k, 2), 2);
    EXPECT_LT(part.local_width(), heads.d_inner_local());
    const auto buffer = make_buffer<float>(part.sequence_buffer_size());
    part.pack(exec, shard, buffer);
    const auto before = values_of(back);
    part.unpack_part(exec, buffer, back);
    // What is not of the part is as it was, what is is there.
    const auto after = values_of(back);
    const auto want = values_of(shard);
    std::vector<bool> own(static_cast<std::size_t>(heads.d_inner()));
    for (int r = 0; r < 3; ++r)
      for (const std::int64_t column : part.table().columns(r)) own[static_cast<std::size_t>(column)] = true;
    for (std::size_t i = 0; i < after.size(); ++i) {
      if (own[i % own.size()]) {
        ASSERT_EQ(after[i], want[i]) << i;
      } else if (k == 1) {
        ASSERT_TRUE(std::isnan(after[i]) && std::isnan(before[i])) << i;
      } else {
        ASSERT_EQ(after[i], before[i]) << i;
      }
    }
  }
  EXPECT_TRUE(values_of(back) == values_of(shard));
}

TEST(RedistributionPlan, NoRows) { check_all<float>(2, 8, 0, {2, 2, 1, 2}, Strides::batch_first); }

TEST(RedistributionPlan, OneRankPassesTheTensorThrough) {
  const HeadPartition heads({}, {4, 2, 2, 2});
  const Plan<float> plan(SequenceLayout::zigzag({}, 6), heads.projection_sections(false), 2);
  EXPECT_TRUE(plan.passthrough());
  EXPECT_EQ(plan.sequence_buffer_size(), 0);
  EXPECT_EQ(plan.heads_buffer_size(), 0);
  const auto shard = make_shard<float>(Strides::slice, 2, 6, plan.width());
  const auto comm = krait::Communicator::self();
  auto arrival = plan.enter(Exec(), comm, shard, {}, {});
  arrival.request.wait();
  EXPECT_EQ(arrival.heads.data(), shard.data());
  EXPECT_EQ(arrival.heads.stride(1), shard.stride(1));
  EXPECT_EQ(plan.leave_target(shard, {}).data(), shard.data());
  plan.send_to_sequence(Exec(), comm, {}, {}).wait();
  EXPECT_EQ(comm.counters().total().calls, 0);
  // One rank that leaves columns out does not.
  const SectionTable part({{"x", 4, 1, {{1, 2}}}});
  EXPECT_FALSE(Plan<float>(SequenceLayout::zigzag({}, 6), part, 2).passthrough());
}

TEST(RedistributionPlan, OneKernelEachAndNothingElse) {
  const Exec exec;
  const HeadPartition heads({1, 3}, {6, 2, 2, 2}, Divisibility::uneven);
  const auto layout = SequenceLayout::zigzag({1, 3}, 12);
  const Plan<float> plan(layout, heads.inner_sections(), 2);
  const auto shard = make_shard<float>(Strides::batch_first, 2, layout.local_length(), plan.width());
  const auto sequential = make_shard<float>(Strides::batch_first, 2, 12, plan.local_width());
  const auto sequence_buffer = make_buffer<float>(plan.sequence_buffer_size());
  const auto heads_buffer = make_buffer<float>(plan.heads_buffer_size());
  const auto all_steps = [&] {
    plan.pack(exec, shard, sequence_buffer);
    plan.to_sequential(exec, plan.heads_view(heads_buffer), sequential);
    plan.from_sequential(exec, sequential, plan.heads_view(heads_buffer));
    plan.unpack(exec, sequence_buffer, shard);
    plan.unpack_part(exec, sequence_buffer, shard);
    plan.pack_columns(exec, shard, 0, sequence_buffer);
    plan.unpack_sum(exec, sequence_buffer, shard);
    plan.unpack_sum_part(exec, sequence_buffer, shard);
  };
  all_steps();
  const CallbackRecorder recorder;
  all_steps();
  const std::string path = std::string("[") + krait::impl::backend_name<Exec>() + ",float]";
  std::vector<std::string> kernels;
  for (const auto& kernel : recorder.kernels()) kernels.push_back(kernel.label);
  EXPECT_THAT(kernels,
              testing::ElementsAre(
                  "krait::redistribution::pack" + path, "krait::redistribution::to_sequential" + path,
                  "krait::redistribution::from_sequential" + path, "krait::redistribution::unpack" + path,
                  "krait::redistribution::unpack_part" + path, "krait::redistribution::pack_columns" + path,
                  "krait::redistribution::unpack_sum" + path, "krait::redistribution::unpack_sum_part" + path));
  std::vector<std::string> fences;
  for (const auto& fence : recorder.fences()) fences.push_back(fence.label);
  EXPECT_THAT(fences, testing::Each(HasSubstr("Kokkos Profile Tool Fence")));  // the recorder's own
  EXPECT_TRUE(recorder.allocations().empty());
  EXPECT_TRUE(recorder.foreign_labels().empty());
  EXPECT_EQ(layout.map_builds(), 1U);
}

TEST(RedistributionPlan, CountsBeyond32Bits) {
  const HeadPartition heads({1, 4}, {64, 64, 8, 128});
  const std::int64_t length = std::int64_t{1} << 24;
  const Plan<bfloat16> plan(SequenceLayout::zigzag({1, 4}, length), heads.projection_sections(false), 3);
  const std::int64_t local = 16 * 64 + 2 * 2 * 128 + 16;
  EXPECT_EQ(plan.local_width(), local);
  EXPECT_EQ(plan.heads_buffer_size(), length * 3 * local);
  EXPECT_EQ(plan.sequence_buffer_size(), length / 4 * 3 * 4 * local);
  EXPECT_EQ(plan.sequence_counts()[3], length / 4 * 3 * local);
  EXPECT_GT(plan.sequence_counts()[3], std::int64_t{1} << 31);
}

TEST(RedistributionPlan, OffsetsBeyond32Bits) {  // defect 20
  if constexpr (!krait::impl::is_host_execution<Exec>) {
    GTEST_SKIP() << "needs memory of which only the pages that are touched exist";
  } else {
    // Tokens 2^31 + 8 elements apart, in a tensor and in a buffer: only a few pages of either are ever touched.
    constexpr std::int64_t stride = (std::int64_t{1} << 31) + 8;
    constexpr std::int64_t tokens = 3;
    constexpr std::size_t bytes = 2 * sizeof(bfloat16) * stride * tokens;
    void* const memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    auto* const data = static_cast<bfloat16*>(memory);
    const Exec exec;
    const auto far = krait::make_tensor<bfloat16***, Exec, 3>(data, {1, tokens, 2}, {1, stride, 1});
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t k = 0; k < 2; ++k) data[t * stride + k] = bfloat16(static_cast<float>(10 * t + k));
    }
    const SectionTable table({{"x", 2, 1, {{0, 1}, {1, 1}}}});
    const Plan<bfloat16> plan(SequenceLayout::explicit_tokens({0, 2}, {{0, 1, 2}, {}}), table, 1);
    const auto packed = make_buffer<bfloat16>(6);
    plan.pack(exec, far, packed);
    EXPECT_THAT(values_of(packed), testing::ElementsAre(0, 10, 20, 1, 11, 21));

    Kokkos::View<krait::impl::BufferPiece*> pieces("krait::test::pieces", 1);
    pieces(0) = {1, 1, stride * tokens, stride};
    const krait::impl::BufferCopy<bfloat16, Exec> copy{
        pieces, krait::impl::TokenRows<const bfloat16>::of(far), data, {}, 1, 0, 2};
    krait::impl::run_copy("krait::test::copy", exec, copy, tokens, 0);
    exec.fence("krait::test: copied");
    for (std::int64_t t = 0; t < tokens; ++t) EXPECT_EQ(float(data[(tokens + t) * stride]), float(10 * t + 1));

    // And back, the column that went twice as large as it was.
    Kokkos::View<krait::impl::SumPiece*> sum_pieces("krait::test::pieces", 1);
    Kokkos::View<krait::impl::SumSource*> sources("krait::test::sources", 2);
    sum_pieces(0) = {0, 1, 0, 2};
    sources(0) = sources(1) = {stride * tokens, stride};
    const krait::impl::BufferSum<bfloat16, Exec> sum{sum_pieces, sources, krait::impl::TokenRows<bfloat16>::of(far),
                                                     data,       1,       true};
    krait::impl::run_copy("krait::test::sum", exec, sum, tokens, 0);
    exec.fence("krait::test: added");
    for (std::int64_t t = 0; t < tokens; ++t) EXPECT_EQ(float(data[t * stride]), float(2 * (10 * t + 1)));
    munmap(memory, bytes);
  }
}

TEST(RedistributionPlan, RefusesWhatDoesNotFit) {
  using krait::CapacityError;
  using krait::ConfigError;
  using krait::LayoutError;
  using krait::ShapeError;
  const Exec exec;
  const HeadPartition heads({0, 2}, {4, 2, 1, 2});
  const auto layout = SequenceLayout::zigzag({0, 2}, 8);
  const Plan<float> plan(layout, heads.projection_sections(false), 1);
  const auto buffer = make_buffer<float>(1000);
  const auto shard = make_shard<float>(Strides::batch_first, 1, 4, plan.width());
  const auto full = make_shard<float>(Strides::batch_first, 1, 8, plan.local_width());
  EXPECT_NO_THROW(plan.pack(exec, shard, buffer));
  EXPECT_THAT([&] { plan.pack(exec, make_shard<float>(Strides::batch_first, 1, 5, plan.width()), buffer); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::Redistribution::pack: in has extents (1, 5, 16), expected "
                                                  "(rows, local tokens, columns) = (1, 4, 16) for the zigzag(even)")));
  EXPECT_THAT([&] { plan.pack(exec, make_shard<float>(Strides::batch_first, 2, 4, plan.width()), buffer); },
              ThrowsMessage<ShapeError>(HasSubstr("(2, 4, 16)")));
  EXPECT_THAT([&] { plan.pack(exec, shard, make_buffer<float>(3)); },
              ThrowsMessage<CapacityError>(HasSubstr("sequence_buffer has 3 elements, 80 are needed")));
  EXPECT_THAT([&] { (void)plan.heads_view(make_buffer<float>(3)); },
              ThrowsMessage<CapacityError>(HasSubstr("heads_buffer has 3 elements, 80 are needed")));
  const Kokkos::View<float**, Kokkos::LayoutRight> wide("krait::test::wide", 1000, 2);
  EXPECT_THAT([&] { plan.pack(exec, shard, Kokkos::subview(wide, Kokkos::ALL, 0)); },
              ThrowsMessage<ShapeError>(HasSubstr("sequence_buffer must have unit stride, has 2")));
  EXPECT_THAT([&] { plan.to_sequential(exec, full, shard); },
              ThrowsMessage<ShapeError>(HasSubstr("to_sequential: out has extents (1, 4, 16), expected (rows, tokens, "
                                                  "local columns) = (1, 8, 10)")));
  EXPECT_THAT([&] { plan.from_sequential(exec, shard, full); },
              ThrowsMessage<ShapeError>(HasSubstr("from_sequential: in has extents")));
  EXPECT_THAT([&] { plan.unpack(exec, buffer, shard); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::Redistribution::unpack: the sections do not give every "
                                                   "column to exactly one rank")));
  EXPECT_THAT([&] { plan.unpack_part(exec, buffer, shard); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::Redistribution::unpack_part: the sections give a column to "
                                                   "several ranks")));
  EXPECT_THAT([&] { plan.unpack_sum(exec, buffer, full); },
              ThrowsMessage<ShapeError>(HasSubstr("krait::Redistribution::unpack_sum: out has extents (1, 8, 10)")));
  EXPECT_THAT([&] { plan.unpack_sum_part(exec, buffer, full); },
              ThrowsMessage<ShapeError>(HasSubstr("unpack_sum_part: out has extents (1, 8, 10)")));
  EXPECT_THAT([&] { plan.unpack_sum_part(exec, make_buffer<float>(3), shard); },
              ThrowsMessage<CapacityError>(HasSubstr("sequence_buffer has 3 elements, 80 are needed")));
  EXPECT_THAT([&] { plan.unpack_sum(exec, make_buffer<float>(3), shard); },
              ThrowsMessage<CapacityError>(HasSubstr("sequence_buffer has 3 elements, 80 are needed")));
  EXPECT_THAT([&] { plan.pack_columns(exec, shard, 1, buffer); },
              ThrowsMessage<ShapeError>(HasSubstr("pack_columns: in has columns [1, 17), but a row has 16")));
  EXPECT_THAT([&] { plan.pack_columns(exec, full, 0, buffer); },
              ThrowsMessage<ShapeError>(HasSubstr("in has extents (1, 8, 10), expected 1 rows and 4 local tokens")));
  EXPECT_THAT([&] { plan.pack_columns(exec, shard, 0, make_buffer<float>(3)); },
              ThrowsMessage<CapacityError>(HasSubstr("sequence_buffer has 3 elements, 80 are needed")));
  EXPECT_THAT([&] { (void)plan.leave_target(full, buffer); },
              ThrowsMessage<ShapeError>(HasSubstr("leave_target: out")));
  EXPECT_THAT([&] { (void)Plan<float>(SequenceLayout::zigzag({0, 4}, 8), plan.table(), 1); },
              ThrowsMessage<LayoutError>(HasSubstr("shared out to 2 ranks, but this is the zigzag(even) layout of 8")));
  EXPECT_THAT([&] { (void)Plan<float>(layout, plan.table(), -1); }, ThrowsMessage<ShapeError>(HasSubstr("rows is -1")));
  const auto self = krait::Communicator::self();
  for (const auto& call :
       std::vector<std::function<void()>>{[&] { (void)plan.enter(exec, self, shard, buffer, buffer); },
                                          [&] { (void)plan.send_to_heads(exec, self, buffer, buffer); },
                                          [&] { (void)plan.send_to_sequence(exec, self, buffer, buffer); }}) {
    EXPECT_THAT(call, ThrowsMessage<LayoutError>(HasSubstr("for rank 0 of 2 is used on rank 0 of 1")));
  }
  EXPECT_EQ(self.counters().total().calls, 0);
}

}  // namespace
