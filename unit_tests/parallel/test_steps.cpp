// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The named steps of HiddenParallel against their closed form.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/parallel/hidden_parallel.hpp>
#include <parallel/sharded.hpp>
#include <support/view_values.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

SequenceOperatorConfig config_for(std::int64_t groups) {
  return {.heads = 8, .head_dim = 3, .groups = groups, .d_state = 2, .divisibility = Divisibility::uneven};
}

// Values that tell row, token and column, exact in float.
float tagged(std::int64_t b, std::int64_t t, std::int64_t c) { return static_cast<float>(b * 100000 + t * 1000 + c); }

TEST(Steps, PreConvGivesConvScansOfOwnColumns) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  constexpr std::int64_t length = 23;
  for (const std::int64_t groups : {1, 2, 4, 8})
    for (const bool with_z : {true, false})
      for (const auto& layout : all_layouts(world.place(), length, {0, 4, 23})) {
        HiddenParallel<float> op(config_for(groups));
        const auto heads = op.partition(world);
        const auto shard = make_shard<float>(layout, 2, heads.projection_width(with_z), tagged);
        const auto got = values_of(op.pre_conv_ssm(exec, world, layout, shard));
        const auto columns = heads.projection_sections(with_z).columns(world.rank());
        std::vector<double> want;
        for (std::int64_t b = 0; b < 2; ++b)
          for (std::int64_t t = 0; t < length; ++t)
            for (const std::int64_t column : columns) want.push_back(tagged(b, t, column));
        EXPECT_EQ(got, want) << layout.description() << " groups " << groups;
      }
}

TEST(Steps, PostConvBringsEveryHeadHome) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  constexpr std::int64_t length = 23;
  for (const auto& layout : all_layouts(world.place(), length, {0, 4, 23})) {
    HiddenParallel<float> op(config_for(2));
    const auto heads = op.partition(world);
    const std::int64_t first = heads.heads_begin(world.rank()) * heads.shape().head_dim;
    const auto sequential = SequenceLayout::contiguous(Place{}, length);
    const auto mine = make_shard<float>(sequential, 2, heads.d_inner_local(),
                                        [&](auto b, auto t, auto c) { return tagged(b, t, first + c); });
    const auto got = values_of(op.post_conv_ssm(exec, world, layout, mine));
    EXPECT_EQ(got, values_of(make_shard<float>(layout, 2, heads.d_inner(), tagged))) << layout.description();
  }
}

TEST(Steps, OneRankGetsItsArgumentBack) {
  const Exec exec;
  const auto alone = Communicator::self();
  const auto layout = SequenceLayout::zigzag(alone, 12);
  HiddenParallel<float> op(config_for(4));
  const auto in = make_shard<float>(layout, 1, op.partition(alone).projection_width(true), tagged);
  EXPECT_EQ(op.pre_conv_ssm(exec, alone, layout, in).data(), in.data());
  const auto y = make_shard<float>(layout, 1, op.partition(alone).d_inner(), tagged);
  EXPECT_EQ(op.post_conv_ssm(exec, alone, layout, y).data(), y.data());
}

TEST(Steps, RefuseOtherWidths) {
  const auto world = Communicator::world(Exec());
  const auto layout = SequenceLayout::zigzag(world, 12);
  HiddenParallel<float> op(config_for(4));
  const auto in = make_shard<float>(layout, 1, 7, tagged);
  EXPECT_THAT([&] { (void)op.pre_conv_ssm(Exec(), world, layout, in); },
              ThrowsMessage<ShapeError>(HasSubstr("in has 7 columns, expected 72, or 48 without z")));
}

}  // namespace
