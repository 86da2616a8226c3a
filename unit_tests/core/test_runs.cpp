// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/core/runs.hpp>

namespace {

using krait::LayoutError;
using krait::SequenceRuns;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(SequenceRuns, WholeRows) {
  const auto runs = SequenceRuns::whole_rows(3, 5);
  EXPECT_EQ(runs.states(), 3);
  EXPECT_THAT(runs.host_offsets(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(runs.host()[2].row, 2);
  EXPECT_EQ(runs.host()[2].end, 5);
}

TEST(SequenceRuns, RowsMayBeEmptyAndRunsToo) {
  const SequenceRuns runs(3, 6, {{0, 0, 2, 0}, {0, 2, 2, 1}, {0, 4, 6, 2}, {2, 1, 6, 3}}, 4);
  EXPECT_THAT(runs.host_offsets(), ElementsAre(0, 3, 3, 4));
}

TEST(SequenceRuns, ARunMayHaveNoState) {
  const SequenceRuns runs(1, 6, {{0, 0, 2, krait::Run::no_state}, {0, 2, 6, 0}}, 1);
  EXPECT_FALSE(runs.host()[0].has_state());
  EXPECT_TRUE(runs.host()[1].has_state());
  EXPECT_EQ(runs.states(), 1);
}

TEST(SequenceRuns, DeviceTablesAreBuiltOnceAndShared) {
  const auto runs = SequenceRuns::whole_rows(2, 4);
  const SequenceRuns copy = runs;
  const auto first = runs.on<Kokkos::HostSpace>();
  const auto second = copy.on<Kokkos::HostSpace>();
  EXPECT_EQ(first.runs.data(), second.runs.data());
  EXPECT_EQ(runs.device_builds(), 1U);
  EXPECT_EQ(first.runs(1).state, 1);
}

TEST(SequenceRuns, RefusesWhatIsNotAListOfRuns) {
  EXPECT_THAT([] { SequenceRuns(1, 4, {{0, 0, 5, 0}}, 1); },
              ThrowsMessage<LayoutError>(HasSubstr("run [0, 5) does not lie in [0, 4)")));
  EXPECT_THAT([] { SequenceRuns(1, 4, {{0, 0, 3, 0}, {0, 2, 4, 1}}, 2); },
              ThrowsMessage<LayoutError>(HasSubstr("run [2, 4) of row 0 follows token 3")));
  EXPECT_THAT([] { SequenceRuns(2, 4, {{1, 0, 3, 0}, {0, 2, 4, 1}}, 2); },
              ThrowsMessage<LayoutError>(HasSubstr("sorted by row")));
  EXPECT_THAT([] { SequenceRuns(1, 4, {{0, 0, 3, 2}}, 2); },
              ThrowsMessage<LayoutError>(HasSubstr("names state 2 of 2")));
  EXPECT_THAT([] { SequenceRuns(1, 4, {{0, 0, 3, -2}}, 2); },
              ThrowsMessage<LayoutError>(HasSubstr("names state -2 of 2")));
  EXPECT_THAT([] { SequenceRuns(1, -4, {}, 0); }, ThrowsMessage<LayoutError>(HasSubstr("negative")));
  EXPECT_THAT([] { SequenceRuns(1, 4, {{0, 3, 2, 0}}, 1); }, ThrowsMessage<LayoutError>(HasSubstr("[3, 2)")));
}

}  // namespace
