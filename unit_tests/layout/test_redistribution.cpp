// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// The redistribution over all ranks of the program.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/layout/redistribution.hpp>
#include <layout/exchange_cases.hpp>
#include <support/callback_recorder.hpp>
#include <support/ranks.hpp>

namespace {

using namespace krait::test;
using krait::CommOperation;
using krait::Communicator;
using krait::Divisibility;
using krait::HeadPartition;
using krait::Redistribution;
using krait::SectionTable;
using krait::SequenceLayout;
using krait::Tensor;
using Exec = Kokkos::DefaultExecutionSpace;

template <class T>
struct Exchange : testing::Test {
  using View = Kokkos::View<T*>;
  Exec exec;
  Communicator world = Communicator::world(exec);

  static View buffer(std::int64_t size) { return View("krait::test::buffer", static_cast<std::size_t>(size)); }

  /// Sends a shard to the heads side and compares with the closed form.
  bool enter_is_right(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows, Strides strides) {
    const Redistribution<T, Exec> plan(layout, table, rows);
    const auto in = make_shard<T>(strides, rows, layout.local_length(), table.width());
    assign(in, expected_shard(layout, table, rows));
    const View sequence_buffer = buffer(plan.sequence_buffer_size());
    const View heads_buffer = buffer(plan.heads_buffer_size());
    auto arrival = plan.enter(exec, world, in, sequence_buffer, heads_buffer);
    arrival.request.wait_on(exec);
    const auto out = make_shard<T>(strides, rows, layout.length(), plan.local_width());
    plan.to_sequential(exec, arrival.heads, out);
    return values_of(arrival.heads) == expected_heads(layout, table, rows, false) &&
           values_of(out) == expected_heads(layout, table, rows, true);
  }

  /// Sends a shard there and back: bits must not change, and no bit may come from the shard itself.
  bool round_trip_is_right(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows,
                           Strides strides) {
    const Redistribution<T, Exec> plan(layout, table, rows);
    const auto in = make_shard<T>(strides, rows, layout.local_length(), table.width());
    const std::vector<double> values = expected_shard(layout, table, rows);
    assign(in, values);
    const View sequence_buffer = buffer(plan.sequence_buffer_size());
    const View heads_buffer = buffer(plan.heads_buffer_size());
    plan.enter(exec, world, in, sequence_buffer, heads_buffer).request.wait_on(exec);
    const auto out = make_shard<T>(strides, rows, layout.local_length(), table.width());
    const auto target = plan.leave_target(out, heads_buffer);
    if (plan.passthrough()) Kokkos::deep_copy(exec, target, in);
    plan.send_to_sequence(exec, world, heads_buffer, sequence_buffer).wait_on(exec);
    plan.unpack(exec, sequence_buffer, out);
    return values_of(out) == values;
  }

  /// Enters a shard and sends what came back home as gradients: a column is as often in the sum as ranks work on it.
  bool sums_are_right(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows, Strides strides) {
    const Redistribution<T, Exec> plan(layout, table, rows);
    const auto in = make_shard<T>(strides, rows, layout.local_length(), table.width());
    std::vector<double> values = expected_shard(layout, table, rows);
    assign(in, values);
    const View sequence_buffer = buffer(plan.sequence_buffer_size());
    const View heads_buffer = buffer(plan.heads_buffer_size());
    plan.enter(exec, world, in, sequence_buffer, heads_buffer).request.wait_on(exec);
    plan.send_to_sequence(exec, world, heads_buffer, sequence_buffer).wait_on(exec);
    const auto out = make_shard<T>(strides, rows, layout.local_length(), table.width());
    if (plan.passthrough()) Kokkos::deep_copy(exec, out, in);
    plan.unpack_sum(exec, sequence_buffer, out);
    std::vector<int> readers(static_cast<std::size_t>(table.width()), 0);
    for (int r = 0; r < table.ranks(); ++r)
      for (const std::int64_t column : table.columns(r)) ++readers[static_cast<std::size_t>(column)];
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<double>(static_cast<T>(values[i] * readers[i % readers.size()]));
    return values_of(out) == values;
  }
};

using Scalars = testing::Types<float, double, krait::bfloat16, krait::float16>;
TYPED_TEST_SUITE(Exchange, Scalars);

TYPED_TEST(Exchange, EntersAndLeavesInEveryLayout) {
  const krait::Place place = this->world;
  int number = 0;
  for (const krait::HeadShape& shape : head_shapes()) {
    const HeadPartition heads(place, shape, Divisibility::uneven);
    for (const std::int64_t rows : {1, 3}) {
      for (const auto& layout : layouts(place, 2 * place.size + 5)) {
        const Strides strides = all_strides[number++ % 4];
        const bool entered = this->enter_is_right(layout, heads.projection_sections(false), rows, strides);
        EXPECT_TRUE(entered) << layout.description() << ", " << shape.heads << " heads, " << shape.groups << " groups, "
                             << rows << " rows";
        const bool returned = this->round_trip_is_right(layout, heads.inner_sections(), rows, strides);
        EXPECT_TRUE(returned) << layout.description() << ", " << shape.heads << " heads, " << rows << " rows";
        const bool added = this->sums_are_right(layout, heads.projection_sections(false), rows, strides);
        EXPECT_TRUE(added) << layout.description() << ", " << shape.heads << " heads, " << shape.groups << " groups, "
                           << rows << " rows";
      }
    }
  }
}

TYPED_TEST(Exchange, LongRows) {  // longer than what a device copies at a time
  const krait::Place place = this->world;
  const HeadPartition heads(place, {8, 160, 2, 16}, Divisibility::uneven);
  for (const auto& layout : layouts(place, 2 * place.size + 1)) {
    for (const Strides strides : {Strides::batch_first, Strides::sequence_first, Strides::slice}) {
      EXPECT_TRUE(this->enter_is_right(layout, heads.projection_sections(false), 2, strides)) << layout.description();
      EXPECT_TRUE(this->round_trip_is_right(layout, heads.inner_sections(), 2, strides)) << layout.description();
      EXPECT_TRUE(this->sums_are_right(layout, heads.projection_sections(false), 2, strides)) << layout.description();
    }
  }
}

TYPED_TEST(Exchange, TakesAnyLength) {
  const krait::Place place = this->world;
  const HeadPartition heads(place, {4, 2, 2, 3}, Divisibility::uneven);
  for (const int length : {0, 1, 2 * place.size - 1, 2 * place.size, 2 * place.size + 1}) {
    for (const auto& layout : layouts(place, length)) {
      EXPECT_TRUE(this->enter_is_right(layout, heads.projection_sections(true), 2, Strides::batch_first)) << length;
      EXPECT_TRUE(this->round_trip_is_right(layout, heads.inner_sections(), 2, Strides::batch_first)) << length;
    }
  }
}

TYPED_TEST(Exchange, SendsOneMessagePerPeerAndNoByteMore) {
  const krait::Place place = this->world;
  const std::int64_t p = place.size;
  const std::int64_t length = 6 * p;
  const std::int64_t rows = 2;
  for (const std::int64_t groups : {std::int64_t{1}, p, 2 * p}) {
    const HeadPartition heads(place, {2 * p, 4, groups, 3});
    const auto layout = SequenceLayout::zigzag(place, length);
    this->world.reset_counters();
    ASSERT_TRUE(this->enter_is_right(layout, heads.projection_sections(false), rows, Strides::batch_first));
    const auto in = this->world.counters().total();
    EXPECT_EQ(in.calls, p == 1 ? 0 : 1);
    EXPECT_EQ(in.messages_sent, p - 1);
    ASSERT_TRUE(this->round_trip_is_right(layout, heads.inner_sections(), rows, Strides::batch_first));
    const auto all = this->world.counters().total();
    EXPECT_EQ(all, this->world.counters()[CommOperation::all_to_all_v]);
    EXPECT_EQ(all.calls, p == 1 ? 0 : 3);
    // Received per direction: every peer's tokens, the own columns; together e b (L/P) X (P-1)/P with z at home.
    const std::int64_t shared = std::max(groups, p);
    const std::int64_t x_in = heads.d_inner() + 2 * shared * 3 + 2 * p;
    const auto volume = [&](std::int64_t x) {
      return static_cast<std::int64_t>(sizeof(TypeParam)) * rows * (length / p) * x * (p - 1) / p;
    };
    EXPECT_EQ(in.bytes_received, volume(x_in));
    EXPECT_EQ(in.bytes_sent, volume(x_in));
    EXPECT_EQ(all.bytes_received, volume(x_in) + 2 * volume(heads.d_inner()));
  }
}

TEST(ExchangeSteps, ManyDocumentsAndLayersShareOneMap) {
  const Exec exec;
  Communicator world = Communicator::world(exec);
  Index cu{0};
  for (int d = 0; d < 4096; ++d) cu.push_back(cu.back() + 2 * world.size());  // one token per chunk
  const auto layout = SequenceLayout::zigzag_docs(world, cu);
  const HeadPartition heads(world, {8, 1, 1, 1}, Divisibility::uneven);
  const Redistribution<float, Exec> in(layout, heads.projection_sections(false), 1);
  const Redistribution<float, Exec> out(layout, heads.inner_sections(), 1);
  const auto shard = make_shard<float>(Strides::batch_first, 1, layout.local_length(), in.width());
  const auto y = make_shard<float>(Strides::batch_first, 1, layout.length(), out.local_width());
  const auto entered = make_shard<float>(Strides::batch_first, 1, layout.length(), in.local_width());
  const auto gone = make_shard<float>(Strides::batch_first, 1, layout.local_length(), out.width());
  const std::int64_t sequence_size = std::max(in.sequence_buffer_size(), out.sequence_buffer_size());
  const std::int64_t heads_size = std::max(in.heads_buffer_size(), out.heads_buffer_size());
  const Kokkos::View<float*> sequence_buffer("krait::test::buffer", static_cast<std::size_t>(sequence_size));
  const Kokkos::View<float*> heads_buffer("krait::test::buffer", static_cast<std::size_t>(heads_size));
  const auto layer = [&] {
    auto arrival = in.enter(exec, world, shard, sequence_buffer, heads_buffer);
    arrival.request.wait_on(exec);
    in.to_sequential(exec, arrival.heads, entered);
    out.from_sequential(exec, y, out.leave_target(gone, heads_buffer));
    out.send_to_sequence(exec, world, heads_buffer, sequence_buffer).wait_on(exec);
    out.unpack(exec, sequence_buffer, gone);
  };
  layer();
  world.reset_counters();
  {
    const CallbackRecorder recorder;
    for (int i = 0; i < 3; ++i) layer();
    EXPECT_TRUE(recorder.allocations().empty());
    EXPECT_TRUE(recorder.foreign_labels().empty());
    const auto packs = std::count_if(recorder.kernels().begin(), recorder.kernels().end(), [](const auto& kernel) {
      return kernel.label.rfind("krait::redistribution::", 0) == 0;
    });
    EXPECT_EQ(packs, world.size() == 1 ? 6 : 12);
  }
  EXPECT_EQ(layout.map_builds(), 1U);
  EXPECT_EQ(world.counters().total().calls, world.size() == 1 ? 0 : 6);
}

TEST(ExchangeSteps, APlanServesOneGroupOnly) {  // the group is an argument of the call
  const Exec exec;
  const Communicator world = Communicator::world(exec);
  if (world.size() == 1) GTEST_SKIP() << "needs ranks";
  const Communicator half = world.split(world.rank() % 2, world.rank());
  const HeadPartition of_half(half, {4, 2, 1, 2}, Divisibility::uneven);
  const auto layout = SequenceLayout::zigzag(half, 9);
  const Redistribution<float, Exec> plan(layout, of_half.inner_sections(), 1);
  const auto shard = make_shard<float>(Strides::batch_first, 1, layout.local_length(), plan.width());
  const auto values = expected_shard(layout, plan.table(), 1);
  assign(shard, values);
  const Kokkos::View<float*> sequence_buffer("krait::test::buffer",
                                             static_cast<std::size_t>(plan.sequence_buffer_size()));
  const Kokkos::View<float*> heads_buffer("krait::test::buffer", static_cast<std::size_t>(plan.heads_buffer_size()));
  EXPECT_THROW((void)plan.enter(exec, world, shard, sequence_buffer, heads_buffer), krait::LayoutError);
  auto arrival = plan.enter(exec, half, shard, sequence_buffer, heads_buffer);
  arrival.request.wait();
  EXPECT_EQ(values_of(arrival.heads), expected_heads(layout, plan.table(), 1, false));
  EXPECT_EQ(world.counters().total().calls, 0);
}

}  // namespace
