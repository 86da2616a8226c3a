// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <krait/core/error.hpp>
#include <krait/parallel/agreement.hpp>
#include <string>

namespace {

using krait::Communicator;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

Communicator world() { return Communicator::world(Kokkos::DefaultExecutionSpace()); }

TEST(Agreement, PassesWhenAllPass) {
  EXPECT_NO_THROW(krait::impl::agree(world(), "krait::test", {{"rows", 1}, {"length", 2}}, [] {}));
}

TEST(Agreement, EveryRankThrowsTheErrorOfTheLowestThatFailed) {
  const auto group = world();
  const int culprit = group.size() / 2;
  const auto check = [&] {
    if (group.rank() >= culprit) throw krait::CapacityError("only " + std::to_string(group.rank()));
  };
  EXPECT_THAT([&] { krait::impl::agree(group, "krait::test", {}, check); },
              ThrowsMessage<krait::CapacityError>(HasSubstr("only " + std::to_string(culprit))));
  EXPECT_NO_THROW(krait::impl::agree(group, "krait::test", {}, [] {}));
}

TEST(Agreement, KeepsTheTypeOfTheError) {
  const auto group = world();
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::ConfigError("x"); }), krait::ConfigError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::LayoutError("x"); }), krait::LayoutError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::ShapeError("x"); }), krait::ShapeError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::FileError("x"); }), krait::FileError);
  EXPECT_THROW(krait::impl::agree(group, "f", {}, [] { throw krait::CommError("x"); }), krait::CommError);
}

TEST(Agreement, SharedValuesMustBeShared) {
  const auto group = world();
  if (group.size() == 1) return;
  const std::int64_t batch = group.rank() == 1 ? 5 : 4;
  EXPECT_THAT([&] { krait::impl::agree(group, "krait::f", {{"length", 7}, {"rows", batch}}, [] {}); },
              ThrowsMessage<krait::LayoutError>(
                  AllOf(HasSubstr("krait::f"), HasSubstr("disagree on rows, rank 0 has 4 and rank 1 has 5"))));
}

krait::DocumentMap two_documents(std::int64_t cut) { return krait::DocumentMap::from_cu_seqlens({0, cut, 12}, 12); }

TEST(AgreedCall, RanksWithOtherLayoutsOrDocumentsAreFound) {
  const auto group = world();
  if (group.size() == 1) return;
  const bool odd = group.rank() == group.size() - 1;
  const auto layout = odd ? krait::SequenceLayout::contiguous(group, 12) : krait::SequenceLayout::zigzag(group, 12);
  krait::impl::AgreedCall call;
  EXPECT_THAT([&] { call(group, "krait::f", layout, two_documents(5), [] {}); },
              ThrowsMessage<krait::LayoutError>(HasSubstr("disagree on the layout")));
  const auto same = krait::SequenceLayout::zigzag(group, 12);
  EXPECT_THAT([&] { call(group, "krait::f", same, two_documents(odd ? 6 : 5), [] {}); },
              ThrowsMessage<krait::LayoutError>(HasSubstr("disagree on the documents")));
  EXPECT_NO_THROW(call(group, "krait::f", same, two_documents(5), [] {}));
}

TEST(AgreedCall, SpeaksOnlyWhenSomethingIsNew) {
  const auto group = world();
  const auto layout = krait::SequenceLayout::zigzag(group, 12);
  const auto documents = two_documents(5);
  krait::impl::AgreedCall call;
  call(group, "krait::f", layout, documents, [] {});
  const auto before = group.counters();
  for (int repeat = 0; repeat < 3; ++repeat) call(group, "krait::f", layout, documents, [] {});
  EXPECT_EQ(group.counters(), before);
  call(group, "krait::f", layout, two_documents(4), [] {});
  EXPECT_EQ(group.counters() == before, group.size() == 1);
}

TEST(AgreedCall, EveryFunctionAgreesForItself) {
  const auto group = world();
  if (group.size() == 1) return;
  const auto layout = krait::SequenceLayout::zigzag(group, 12);
  const auto documents = two_documents(5);
  krait::impl::AgreedCall call;
  call(group, "krait::f", layout, documents, [] {});
  const auto refuse_on_rank_1 = [&] { KRAIT_REQUIRE(krait::ShapeError, group.rank() != 1, "krait::g: wrong"); };
  EXPECT_THAT([&] { call(group, "krait::g", layout, documents, refuse_on_rank_1); },
              ThrowsMessage<krait::ShapeError>(HasSubstr("rank 1: krait::g: wrong")));
  call(group, "krait::g", layout, documents, [] {});
  const auto before = group.counters();
  for (const char* function : {"krait::f", "krait::g", "krait::f"}) call(group, function, layout, documents, [] {});
  EXPECT_EQ(group.counters(), before);
}

// Documents made anew with the same contents are no news: a rank that keeps its map and one that makes a new one at
// every call must do the same.
TEST(AgreedCall, ContentsCountNotObjects) {
  const auto group = world();
  const auto layout = krait::SequenceLayout::zigzag(group, 12);
  const auto kept = two_documents(5);
  krait::impl::AgreedCall call;
  call(group, "krait::f", layout, kept, [] {});
  const auto before = group.counters();
  call(group, "krait::f", layout, group.rank() == 0 ? kept : two_documents(5), [] {});
  EXPECT_EQ(group.counters(), before);
}

// Rank 0 pairs up with one rank after the other, with the same layout: each pair has to agree, though rank 0 has
// done so before in another pair, and comes back to the first pair, which has agreed before.
TEST(AgreedCall, EveryGroupAgreesForItself) {
  const auto all = world();
  if (all.size() < 3) return;
  krait::impl::AgreedCall call;
  const auto documents = two_documents(5);
  const auto first = all.split(all.rank() == 2 ? 1 : 0, all.rank() < 2 ? 0 : 1);
  const auto second = all.split(all.rank() == 1 ? 1 : 0, all.rank() == 0 || all.rank() == 2 ? 0 : 1);
  const auto with = [&](const Communicator& group) {
    call(group, "krait::f", krait::SequenceLayout::zigzag(group, 12), documents, [] {});
  };
  if (all.rank() != 2) with(first);
  if (all.rank() != 1) with(second);
  if (all.rank() != 2) with(first);
  all.barrier();
}

// A layout made for rank 0 everywhere: rank 0 alone would see nothing wrong.
TEST(AgreedCall, AWrongRankIsEverybodysError) {
  const auto group = world();
  if (group.size() == 1) return;
  const auto layout = krait::SequenceLayout::zigzag(krait::Place{0, group.size()}, 12);
  krait::impl::AgreedCall call;
  EXPECT_THAT(
      [&] { call(group, "krait::f", layout, two_documents(5), [&] { layout.require_match("krait::f", group); }); },
      ThrowsMessage<krait::LayoutError>(HasSubstr("rank 1: krait::f")));
}

}  // namespace
