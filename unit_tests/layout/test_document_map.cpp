// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/layout/document_map.hpp>

namespace {

using krait::DocumentMap;
using krait::LayoutError;
using krait::Policy;
using krait::SequenceLayout;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Index = std::vector<std::int64_t>;
using Ids = std::vector<std::int32_t>;

// A matcher is a class that is called like a function.
// NOLINTNEXTLINE(readability-identifier-naming)
MATCHER_P4(IsRun, row, begin, end, state, "") {
  return arg.row == row && arg.begin == begin && arg.end == end && arg.state == state;
}

/// The id by the defining formula: inner boundaries that are not beyond t; the tail has one more.
Ids ids_by_formula(const Index& cu, std::int64_t length) {
  Ids ids;
  for (std::int64_t t = 0; t < length; ++t) {
    std::int32_t id = 0;
    for (std::size_t d = 1; d + 1 < cu.size(); ++d) id += cu[d] <= t ? 1 : 0;
    ids.push_back(t >= cu.back() ? static_cast<std::int32_t>(cu.size()) - 1 : id);
  }
  return ids;
}

TEST(DocumentMap, WholeRows) {
  const auto map = DocumentMap::whole_rows(2, 3);
  EXPECT_EQ(map.documents(), 2);
  EXPECT_EQ(map.rows(), 2);
  EXPECT_EQ(map.length(), 3);
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(DocumentMap, IdsOfBoundariesAndOfTheTail) {  // V9
  const Index cu{0, 5, 7, 11};
  const auto map = DocumentMap::from_cu_seqlens(cu, 16);
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3));
  EXPECT_EQ(map.documents(), 4);
  EXPECT_THAT(map.runs().host(),
              ElementsAre(IsRun(0, 0, 5, 0), IsRun(0, 5, 7, 1), IsRun(0, 7, 11, 2), IsRun(0, 11, 16, 3)));
  EXPECT_EQ(DocumentMap::from_cu_seqlens(cu, 11).documents(), 3);
}

TEST(DocumentMap, IdsFollowTheFormulaForEveryBoundary) {  // defect 6
  for (std::int64_t length = 1; length <= 6; ++length) {
    for (std::int64_t a = 0; a <= length; ++a) {
      for (std::int64_t b = a; b <= length; ++b) {
        for (std::int64_t end = b; end <= length; ++end) {
          const Index cu{0, a, b, end};
          EXPECT_EQ(DocumentMap::from_cu_seqlens(cu, length).seq_idx(), ids_by_formula(cu, length));
        }
      }
    }
  }
  Index every;
  for (std::int64_t t = 0; t <= 9; ++t) every.push_back(t);
  EXPECT_THAT(DocumentMap::from_cu_seqlens(every, 9).seq_idx(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(DocumentMap, ResetsDoNotDependOnTheLayout) {  // V10
  const auto layout = SequenceLayout::zigzag({0, 2}, 16);
  const auto map = DocumentMap::from_cu_seqlens({0, 8, 12, 16}, 16);
  map.require_match("f", layout);
  const Index rank_major = layout.inverse_index();
  Index sequential;
  for (const auto place : layout.index()) sequential.push_back(rank_major[static_cast<std::size_t>(place)]);
  EXPECT_THAT(sequential, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2));
}

TEST(DocumentMap, EmptyDocumentsHaveAState) {
  const auto map = DocumentMap::from_cu_seqlens({0, 0, 3, 3, 4}, 4);
  EXPECT_EQ(map.documents(), 4);
  EXPECT_THAT(map.runs().host(),
              ElementsAre(IsRun(0, 0, 0, 0), IsRun(0, 0, 3, 1), IsRun(0, 3, 3, 2), IsRun(0, 3, 4, 3)));
  EXPECT_THAT(map.seq_idx(), ElementsAre(1, 1, 1, 3));
  EXPECT_EQ(DocumentMap::from_cu_seqlens({0, 0}, 0).documents(), 1);
}

TEST(DocumentMap, RealLengthsMarkPadding) {  // defects 7, 10
  const auto map = DocumentMap::from_cu_seqlens({0, 4, 8, 8}, {3, 4, 0}, 9);
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 0, -1, 1, 1, 1, 1, 3));
  EXPECT_EQ(map.documents(), 4);
  EXPECT_THAT([] { (void)DocumentMap::from_cu_seqlens({0, 4, 8}, {3}, 8); },
              ThrowsMessage<LayoutError>(HasSubstr("1 real lengths for 2 documents")));
  EXPECT_THAT([] { (void)DocumentMap::from_cu_seqlens({0, 4, 8}, {3, 5}, 8); },
              ThrowsMessage<LayoutError>(HasSubstr("document 1 has 4 tokens, its real length is given as 5")));
  EXPECT_THAT([] { (void)DocumentMap::from_cu_seqlens({0, 4, 8}, {-1, 4}, 8); },
              ThrowsMessage<LayoutError>(HasSubstr("given as -1")));
}

TEST(DocumentMap, TakesThePaddingOfALayout) {
  const auto layout = SequenceLayout::zigzag_docs({0, 2}, {0, 5, 6}, Policy::tail_pad);
  const auto map = DocumentMap::from_cu_seqlens(layout.padded_boundaries(), layout.real_lengths(), layout.length());
  map.require_match("f", layout);
  const Ids ids = map.seq_idx();
  for (std::int64_t t = 0; t < layout.length(); ++t) {
    EXPECT_EQ(ids[static_cast<std::size_t>(t)] < 0, layout.source_token(t) < 0) << t;
  }
}

TEST(DocumentMap, EveryRowHasItsOwnBoundaries) {  // defect 8
  const auto map = DocumentMap::from_cu_seqlens_per_row({{0, 2, 5}, {0, 4, 5}, {0, 3}}, 5);
  EXPECT_EQ(map.documents(), 6);
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1));
  EXPECT_THAT(map.runs().host(), ElementsAre(IsRun(0, 0, 2, 0), IsRun(0, 2, 5, 1), IsRun(1, 0, 4, 2), IsRun(1, 4, 5, 3),
                                             IsRun(2, 0, 3, 4), IsRun(2, 3, 5, 5)));
}

TEST(DocumentMap, IdsThatReturnBeginANewDocument) {  // defect 25
  const auto map = DocumentMap::from_seq_idx({0, 0, 1, 0, 0, -1, -3, 0, 5, 5, 7, 7}, 1, 12);
  EXPECT_EQ(map.documents(), 6);
  EXPECT_THAT(map.seq_idx(), ElementsAre(0, 0, 1, 2, 2, -1, -1, 3, 4, 4, 5, 5));
}

TEST(DocumentMap, IdsOfOneRowDoNotReachTheNext) {
  const auto map = DocumentMap::from_seq_idx({3, 3, 3, 3}, 2, 2);
  EXPECT_THAT(map.runs().host(), ElementsAre(IsRun(0, 0, 2, 0), IsRun(1, 0, 2, 1)));
  // 2^32 rows of 2^32 tokens: their product is 0 in 64 bits.
  const std::int64_t many = std::int64_t{1} << 32;
  EXPECT_THROW((void)DocumentMap::from_seq_idx({}, many, many), LayoutError);
  EXPECT_THAT([] { (void)DocumentMap::from_seq_idx({0, 0, 0}, 2, 2); },
              ThrowsMessage<LayoutError>(HasSubstr("3 ids for 2 rows of 2 tokens")));
}

TEST(DocumentMap, BoundariesAndIdsMustAgree) {
  const auto map = DocumentMap::from_cu_seqlens({0, 2, 2, 5}, 5);
  EXPECT_NO_THROW(map.require_agreement("f", {7, 7, 8, 8, 8}));
  EXPECT_TRUE(map.same_resets(DocumentMap::from_cu_seqlens({0, 2, 5}, 5)));
  EXPECT_FALSE(map.same_resets(DocumentMap::from_cu_seqlens({0, 3, 5}, 5)));
  EXPECT_FALSE(map.same_resets(DocumentMap::from_cu_seqlens({0, 2, 5}, 6)));
  EXPECT_THAT([&] { map.require_agreement("krait::forward", {0, 0, 0, 1, 1}); },
              ThrowsMessage<LayoutError>(HasSubstr("krait::forward: the boundaries give document [0, 2) of row 0 where "
                                                   "seq_idx gives document [0, 3) of row 0")));
  EXPECT_THAT([&] { map.require_agreement("f", {0, 0, 1, 1, -1}); }, ThrowsMessage<LayoutError>(HasSubstr("[2, 4)")));
  EXPECT_THAT([&] { map.require_agreement("f", {0, 0, 1, 1, 2}); }, ThrowsMessage<LayoutError>(HasSubstr("[2, 4)")));
  EXPECT_THAT([&] { map.require_agreement("f", {0, 0, -1, -1, -1}); },
              ThrowsMessage<LayoutError>(HasSubstr("seq_idx gives no further document")));
}

TEST(DocumentMap, RefusesWhatIsNoListOfBoundaries) {  // V8
  const auto make = [](const Index& cu) { return [cu] { (void)DocumentMap::from_cu_seqlens(cu, 8); }; };
  EXPECT_THAT(make({0}),
              ThrowsMessage<LayoutError>(HasSubstr("krait::DocumentMap::from_cu_seqlens: cu_seqlens has 1")));
  EXPECT_THAT(make({1, 8}), ThrowsMessage<LayoutError>(HasSubstr("begins with 1, expected 0")));
  EXPECT_THAT(make({0, 5, 4, 8}), ThrowsMessage<LayoutError>(HasSubstr("decreases from 5 to 4")));
  EXPECT_THAT(make({0, 9}), ThrowsMessage<LayoutError>(HasSubstr("cu_seqlens ends with 9, but row 0 has 8 tokens")));
  EXPECT_THAT([] { (void)DocumentMap::from_cu_seqlens({0, 4}, {3, 3}, 4); }, testing::Throws<LayoutError>());
  EXPECT_THAT([] { (void)DocumentMap::whole_rows(-1, 4); }, ThrowsMessage<LayoutError>(HasSubstr("negative")));
  EXPECT_THAT([] { (void)DocumentMap::from_cu_seqlens_per_row({{0, 4}, {0, 5}}, 4); },
              ThrowsMessage<LayoutError>(HasSubstr("row 1 has 4 tokens")));
}

TEST(DocumentMap, MustFitTheRowsAndTheLayout) {  // defects 3, 5, 10
  const auto map = DocumentMap::from_cu_seqlens({0, 8, 12}, 12);
  EXPECT_NO_THROW(map.require_match("f", 1, 12));
  EXPECT_THAT([&] { map.require_match("krait::forward", 2, 12); },
              ThrowsMessage<LayoutError>(HasSubstr("for 1 rows of 12 tokens, expected 2 rows of 12 tokens")));
  EXPECT_THAT([&] { map.require_match("f", 1, 11); }, ThrowsMessage<LayoutError>(HasSubstr("expected 1 rows of 11")));

  EXPECT_NO_THROW(map.require_match("f", SequenceLayout::zigzag({0, 2}, 12)));
  EXPECT_NO_THROW(map.require_match("f", SequenceLayout::zigzag_docs({0, 2}, {0, 8, 8, 12})));
  EXPECT_THAT([&] { map.require_match("f", SequenceLayout::zigzag_docs({0, 2}, {0, 4, 12})); },
              ThrowsMessage<LayoutError>(HasSubstr("document [0, 8) of row 0 contradicts document [0, 4) of the "
                                                   "zigzag_docs(even) layout of 12 tokens for rank 0 of 2")));
  EXPECT_THAT([&] { map.require_match("f", SequenceLayout::zigzag_docs({0, 2}, {0, 12})); },
              ThrowsMessage<LayoutError>(HasSubstr("document [8, 12) of row 0 contradicts document [0, 12)")));
  EXPECT_THAT(
      [&] { map.require_match("f", SequenceLayout::zigzag_docs({0, 2}, {0, 8})); },
      ThrowsMessage<LayoutError>(HasSubstr("rows of 12 tokens, but this is the zigzag_docs(even) layout of 8")));
  EXPECT_NO_THROW(DocumentMap::from_seq_idx({0, 0, -1, -1, 1, 1, 1, 1}, 1, 8)
                      .require_match("f", SequenceLayout::zigzag_docs({0, 2}, {0, 4, 8})));
}

TEST(DocumentMap, ManyDocumentsShareOneTable) {  // defect 19
  Index cu{0};
  for (int d = 0; d < 4096; ++d) cu.push_back(cu.back() + 1);
  const auto map = DocumentMap::from_cu_seqlens(cu, 4096);
  const DocumentMap copy = map;
  const auto first = map.runs().on<Kokkos::HostSpace>();
  EXPECT_EQ(copy.runs().on<Kokkos::HostSpace>().runs.data(), first.runs.data());
  EXPECT_EQ(map.runs().device_builds(), 1U);
  EXPECT_EQ(map.documents(), 4096);
}

}  // namespace
