// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include <krait/core/error.hpp>
#include <krait/layout/head_partition.hpp>

namespace {

using krait::ConfigError;
using krait::Divisibility;
using krait::HeadPartition;
using krait::HeadShape;
using krait::SectionTable;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Index = std::vector<std::int64_t>;

/// The columns of a rank, from the formula for ranks, heads and groups that divide.
Index strict_columns(const HeadShape& s, std::int64_t ranks, std::int64_t r, bool with_z) {
  const std::int64_t di = s.heads * s.head_dim;
  const std::int64_t repeat = s.groups < ranks ? ranks / s.groups : 1;
  const std::int64_t g_loc = s.groups < ranks ? 1 : s.groups / ranks;
  Index result;
  const auto add = [&result](std::int64_t begin, std::int64_t count) {
    for (std::int64_t k = 0; k < count; ++k) result.push_back(begin + k);
  };
  std::int64_t begin = 0;
  if (with_z) {
    add(r * di / ranks, di / ranks);
    begin = di;
  }
  add(begin + r * di / ranks, di / ranks);
  begin += di;
  add(begin + (r / repeat) * g_loc * s.d_state, g_loc * s.d_state);
  begin += s.groups * s.d_state;
  add(begin + (r / repeat) * g_loc * s.d_state, g_loc * s.d_state);
  begin += s.groups * s.d_state;
  add(begin + r * s.heads / ranks, s.heads / ranks);
  return result;
}

bool strict_accepts(const HeadShape& s, std::int64_t ranks) {
  return s.heads % ranks == 0 && s.heads % s.groups == 0 &&
         (s.groups < ranks ? ranks % s.groups == 0 : s.groups % ranks == 0);
}

TEST(HeadPartition, OneGroupOnTwoRanks) {  // V6
  const HeadPartition heads({0, 2}, {.heads = 4, .head_dim = 2, .groups = 1, .d_state = 2});
  const SectionTable table = heads.projection_sections(true);
  EXPECT_EQ(table.width(), 24);
  EXPECT_EQ(heads.group_repeat_count(0), 2);
  EXPECT_THAT(table.columns(0), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21));
  EXPECT_THAT(table.columns(1), ElementsAre(4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19, 22, 23));
  EXPECT_THAT(heads.conv_sections().columns(0), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11));
  EXPECT_THAT(heads.conv_sections().columns(1), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  // The gradient of the exchange in, of all ones, counts how many ranks read each column.
  std::map<std::int64_t, int> readers;
  for (int r = 0; r < 2; ++r) {
    for (const std::int64_t column : table.columns(r)) ++readers[column];
  }
  for (std::int64_t q = 0; q < 24; ++q) EXPECT_EQ(readers[q], q >= 16 && q < 20 ? 2 : 1) << q;
}

TEST(HeadPartition, FourGroupsOnTwoRanks) {  // V7
  const HeadPartition heads({1, 2}, {.heads = 4, .head_dim = 2, .groups = 4, .d_state = 2});
  const SectionTable table = heads.projection_sections(true);
  EXPECT_EQ(table.width(), 36);
  EXPECT_EQ(heads.groups(), 2);
  EXPECT_EQ(heads.group_repeat_count(3), 1);
  EXPECT_THAT(table.columns(0), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27, 32, 33));
  EXPECT_THAT(table.columns(1), ElementsAre(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31, 34, 35));
  EXPECT_THAT(heads.conv_sections().columns(0), ElementsAre(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19));
  EXPECT_THAT(heads.conv_sections().columns(1), ElementsAre(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23));
}

TEST(HeadPartition, StrictAndUnevenMakeTheSamePlan) {
  int plans = 0;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const std::int64_t h : {1, 2, 3, 4, 6, 8, 12, 16, 24, 40}) {
      for (const std::int64_t g : {1, 2, 3, 4, 5, 8, 12}) {
        const HeadShape shape{h, 3, g, 2};
        if (!strict_accepts(shape, ranks)) continue;
        ++plans;
        const HeadPartition strict({0, ranks}, shape);
        const HeadPartition uneven({0, ranks}, shape, Divisibility::uneven);
        for (int r = 0; r < ranks; ++r) {
          for (const bool with_z : {false, true}) {
            const Index columns = strict.projection_sections(with_z).columns(r);
            ASSERT_EQ(columns, strict_columns(shape, ranks, r, with_z));
            ASSERT_EQ(columns, uneven.projection_sections(with_z).columns(r));
            ASSERT_EQ(static_cast<std::int64_t>(columns.size()), strict.projection_width_local(r, with_z));
          }
          ASSERT_EQ(strict.conv_sections().columns(r), uneven.conv_sections().columns(r));
          ASSERT_EQ(strict.groups(r), g < ranks ? 1 : g / ranks);
        }
      }
    }
  }
  EXPECT_GT(plans, 100);
}

TEST(HeadPartition, BlocksOfASharesHeadsAreTheShare) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    for (const HeadShape& shape : {HeadShape{4, 2, 2, 3}, HeadShape{12, 1, 3, 2}, HeadShape{13, 3, 1, 2}}) {
      const HeadPartition heads({0, ranks}, shape, Divisibility::uneven);
      for (const std::int64_t blocks : {1, 2, 3, 7}) {
        for (int r = 0; r < ranks; ++r) {
          Index columns;
          Index inner;
          std::int64_t next = heads.heads_begin(r);
          for (std::int64_t k = 0; k < blocks; ++k) {
            const krait::UnitRange block = heads.block(r, k, blocks);
            ASSERT_EQ(block.begin, next);
            ASSERT_LE(block.count, (heads.heads(r) + blocks - 1) / blocks + 1);
            next += block.count;
            // x of these heads, with the first B and C of all groups, dt of these heads.
            const SectionTable table = heads.projection_block(k, blocks);
            ASSERT_EQ(table.width(), heads.projection_width(false));
            ASSERT_EQ(table.local_width(r),
                      block.count * (shape.head_dim + 1) + (k == 0 ? 2 * heads.group_width_local(r) : 0));
            for (const std::int64_t column : table.columns(r)) columns.push_back(column);
            for (const std::int64_t column : heads.inner_block(k, blocks).columns(r)) inner.push_back(column);
            ASSERT_TRUE(heads.inner_block(k, blocks).is_disjoint());
          }
          ASSERT_EQ(next, heads.heads_end(r));
          std::sort(columns.begin(), columns.end());
          ASSERT_EQ(columns, heads.projection_sections(false).columns(r));
          ASSERT_EQ(inner, heads.inner_sections().columns(r));
        }
      }
    }
  }
}

TEST(HeadPartition, UnevenSharesCoverAllHeadsWithTheirGroups) {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const std::int64_t h : {1, 2, 3, 6, 7, 12}) {
      for (const std::int64_t g : {1, 2, 3, 6, 7, 12}) {
        if (h % g != 0) continue;
        const HeadPartition heads({0, ranks}, {h, 2, g, 3}, Divisibility::uneven);
        std::int64_t next = 0;
        for (int r = 0; r < ranks; ++r) {
          ASSERT_EQ(heads.heads_begin(r), next);
          next = heads.heads_end(r);
          ASSERT_LE(heads.heads(r), (h + ranks - 1) / ranks);
          ASSERT_GE(heads.heads(r), h / ranks);
          for (std::int64_t local = 0; local < heads.heads(r); ++local) {
            const std::int64_t group = (heads.heads_begin(r) + local) / (h / g);
            const std::int64_t local_group = (local + heads.first_head(r)) / heads.heads_per_group();
            ASSERT_EQ(heads.groups_begin(r) + local_group, group);
            ASSERT_LT(local_group, heads.groups(r));
          }
          if (heads.heads(r) == 0) {
            ASSERT_EQ(heads.groups(r), 0);
          }
        }
        ASSERT_EQ(next, h);
        EXPECT_TRUE(heads.inner_sections().is_partition());
        EXPECT_EQ(heads.projection_sections(false).width(), heads.projection_width(false));
        EXPECT_EQ(heads.conv_sections().width(), heads.conv_channels());
        for (const std::int64_t blocks : {1, 2, 3}) {
          std::vector<std::int64_t> widths(static_cast<std::size_t>(ranks));
          for (std::int64_t k = 0; k < HeadPartition::backward_parts(blocks); ++k) {
            const auto part = heads.backward_part(k, blocks);
            const auto gradients = heads.gradient_part(k, blocks);
            EXPECT_EQ(part.width(), heads.projection_width(false) + heads.d_inner());
            EXPECT_EQ(gradients.width(), heads.projection_width(false));
            for (int r = 0; r < ranks; ++r) {
              EXPECT_EQ(part.local_begin(4, r), gradients.local_width(r));
              EXPECT_EQ(part.local_width(r) - gradients.local_width(r),
                        k < blocks ? heads.block(r, k, blocks).count * heads.shape().head_dim : 0);
              widths[static_cast<std::size_t>(r)] += gradients.local_width(r);
            }
            if (k == blocks) {
              EXPECT_EQ(gradients.local_width(0), 2 * heads.group_width_local(0));
            }
          }
          for (int r = 0; r < ranks; ++r)
            EXPECT_EQ(widths[static_cast<std::size_t>(r)], heads.projection_width_local(r, false));
        }
        EXPECT_EQ(heads.projection_sections(false).is_partition(), heads.conv_sections().is_partition());
        std::int64_t readers = 0;
        for (std::int64_t group = 0; group < g; ++group) readers += heads.group_repeat_count(group);
        std::int64_t groups = 0;
        for (int r = 0; r < ranks; ++r) groups += heads.groups(r);
        EXPECT_EQ(readers, groups);
      }
    }
  }
}

TEST(HeadPartition, ElementsSentPerToken) {  // V17: 64 heads of 64, 8 groups of 128
  const auto elements = [](int ranks) {
    const HeadPartition heads({0, ranks}, {.heads = 64, .head_dim = 64, .groups = 8, .d_state = 128});
    std::int64_t sum = heads.d_inner();  // the way back
    for (int r = 0; r < ranks; ++r) sum += heads.projection_width_local(r, false);
    return sum;
  };
  EXPECT_EQ(elements(4), 10304);
  EXPECT_EQ(elements(8), 10304);
  EXPECT_EQ(elements(16), 12352);
}

TEST(HeadPartition, StrictNamesWhatDoesNotDivide) {  // V8, defect 3 of the feature table
  const auto make = [](std::int64_t h, std::int64_t g, int ranks, Divisibility divisibility) {
    return [=] { (void)HeadPartition({0, ranks}, {h, 2, g, 2}, divisibility); };
  };
  constexpr auto strict = Divisibility::strict;
  constexpr auto uneven = Divisibility::uneven;
  EXPECT_THAT(make(3, 2, 2, strict), ThrowsMessage<ConfigError>(HasSubstr("3 heads do not divide by 2 groups")));
  EXPECT_THAT(make(12, 3, 4, strict), ThrowsMessage<ConfigError>(HasSubstr("4 ranks do not divide by 3 groups")));
  EXPECT_THAT(make(12, 3, 2, strict), ThrowsMessage<ConfigError>(HasSubstr("3 groups do not divide by 2 ranks")));
  EXPECT_THAT(make(7, 1, 4, strict), ThrowsMessage<ConfigError>(HasSubstr("7 heads do not divide by 4 ranks")));
  EXPECT_THAT(make(12, 5, 4, strict), ThrowsMessage<ConfigError>(HasSubstr("12 heads do not divide by 5 groups")));
  EXPECT_THAT(make(20, 5, 4, strict), ThrowsMessage<ConfigError>(HasSubstr("5 groups do not divide by 4 ranks")));
  EXPECT_THAT(make(2, 1, 4, strict), ThrowsMessage<ConfigError>(AllOf(HasSubstr("2 heads do not divide by 4 ranks"),
                                                                      HasSubstr("Divisibility::uneven accepts this"))));
  for (const int ranks : {3, 6, 12}) {
    EXPECT_THAT(make(64, 8, ranks, strict), testing::Throws<ConfigError>());
    EXPECT_NO_THROW(make(64, 8, ranks, uneven)());
  }
  EXPECT_NO_THROW(make(7, 1, 4, uneven)());
  EXPECT_NO_THROW(make(2, 1, 4, uneven)());
  EXPECT_THAT(make(3, 2, 2, uneven), testing::Throws<ConfigError>());
}

TEST(HeadPartition, RefusesExtentsThatAreNotPositive) {
  for (const HeadShape& shape : {HeadShape{0, 1, 1, 1}, HeadShape{1, 0, 1, 1}, HeadShape{1, 1, 0, 1},
                                 HeadShape{1, 1, 1, 0}, HeadShape{-4, 1, 1, 1}}) {
    EXPECT_THAT([&] { (void)HeadPartition({0, 1}, shape, Divisibility::uneven); },
                ThrowsMessage<ConfigError>(HasSubstr("must be positive, got " + std::to_string(shape.heads))));
  }
  EXPECT_THAT([] { (void)HeadPartition({4, 4}, {4, 1, 1, 1}); },
              ThrowsMessage<ConfigError>(HasSubstr("rank 4 of 4 ranks does not exist")));
}

TEST(SectionTable, AnyPackingOfChannels) {
  // Two sections of which the second is shared: rank 1 and 2 read the same half.
  const SectionTable table({{"q", 3, 2, {{0, 1}, {1, 1}, {2, 1}}}, {"k", 2, 3, {{0, 1}, {1, 1}, {1, 1}}}});
  EXPECT_EQ(table.width(), 12);
  EXPECT_EQ(table.local_width(1), 5);
  EXPECT_EQ(table.local_begin(1, 1), 2);
  EXPECT_THAT(table.columns(2), ElementsAre(4, 5, 9, 10, 11));
  EXPECT_FALSE(table.is_partition());
  EXPECT_EQ(table.pieces(0).size(), 2U);
  const SectionTable whole({{"q", 3, 2, {{0, 3}}}, {"k", 2, 3, {{0, 2}}}});
  EXPECT_EQ(whole.pieces(0).size(), 1U);
  EXPECT_TRUE(whole.is_partition());
  EXPECT_FALSE(SectionTable({{"q", 3, 2, {{0, 1}, {2, 1}}}}).is_partition());
  EXPECT_TRUE(SectionTable({{"q", 3, 2, {{0, 1}, {2, 1}}}}).is_disjoint());
  EXPECT_FALSE(SectionTable({{"q", 3, 2, {{0, 2}, {1, 1}}}}).is_disjoint());
  EXPECT_FALSE(SectionTable({{"q", 3, 2, {{0, 1}, {1, 1}}}}).is_partition());
}

TEST(SectionTable, RefusesWhatDoesNotFit) {
  const auto make = [](const std::vector<krait::Section>& sections) {
    return [sections] { (void)SectionTable(sections); };
  };
  EXPECT_THAT(make({}), ThrowsMessage<ConfigError>(HasSubstr("there must be a section and a rank")));
  EXPECT_THAT(make({{"q", 3, 2, {}}}), ThrowsMessage<ConfigError>(HasSubstr("a section and a rank")));
  EXPECT_THAT(make({{"q", 3, 2, {{0, 4}}}}),
              ThrowsMessage<ConfigError>(HasSubstr("rank 0 takes units [0, 4) of section q, which has 3")));
  EXPECT_THAT(make({{"q", 3, 2, {{-1, 1}}}}), ThrowsMessage<ConfigError>(HasSubstr("[-1, 0)")));
  EXPECT_THAT(make({{"q", 3, 0, {{0, 1}}}}), ThrowsMessage<ConfigError>(HasSubstr("3 units of width 0")));
  EXPECT_THAT(make({{"q", 3, 1, {{0, 1}}}, {"k", 1, 1, {{0, 1}, {0, 1}}}}),
              ThrowsMessage<ConfigError>(HasSubstr("section k names 2 ranks, section q names 1")));
}

}  // namespace
