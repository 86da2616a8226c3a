// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "genome_common/first_rank.hpp"

namespace {

using testing::StrEq;
using testing::ThrowsMessage;

krait::Communicator world() { return krait::Communicator::world(Kokkos::DefaultExecutionSpace()); }

TEST(FirstRank, WorksAlone) {
  const auto ranks = world();
  int runs = 0;
  genome::on_first_rank(ranks, [&] { ++runs; });
  EXPECT_EQ(runs, ranks.rank() == 0 ? 1 : 0);
}

TEST(FirstRank, ItsErrorsAreThrownOnEveryRank) {
  const auto ranks = world();
  EXPECT_THAT([&] { genome::on_first_rank(ranks, [] { throw krait::FileError("no file"); }); },
              ThrowsMessage<krait::FileError>(StrEq("no file")));
  EXPECT_THAT([&] { genome::on_first_rank(ranks, [] { throw krait::ConfigError("no way"); }); },
              ThrowsMessage<krait::ConfigError>(StrEq("no way")));
}

TEST(FirstRank, ItsBytesReachEveryRank) {
  const auto ranks = world();
  std::string word = ranks.rank() == 0 ? "genome" : "of another length";
  genome::share(ranks, word);
  EXPECT_EQ(word, "genome");
  std::vector<std::uint8_t> nothing(ranks.rank() == 0 ? 0 : 5);
  genome::share(ranks, nothing);
  EXPECT_TRUE(nothing.empty());
}

}  // namespace
