// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// State passing by blocks of heads: the same bits, and states that travel while the other blocks are worked on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <parallel/compare.hpp>
#include <parallel/late_kernel.hpp>
#include <support/callback_recorder.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

SequenceOperatorConfig in_blocks(std::int64_t heads, std::int64_t groups, std::int64_t blocks, StateExchange exchange) {
  SequenceOperatorConfig config = small(heads, groups, Communicator::self());
  config.state_exchange = exchange;
  config.head_blocks = blocks;
  return config;
}

struct Shape {
  std::int64_t heads, groups, blocks;
};
/// Blocks of whole groups, of parts of one, of both, of one head, and of all.
const std::vector<Shape> shapes = {{6, 2, 2}, {6, 1, 2}, {5, 1, 2}, {6, 2, 4}, {9, 3, 2}, {4, 4, 4}, {1, 1, 1}};

TEST(HeadBlocks, ChangeNoBit) {
  const auto world = Communicator::world(Exec());
  for (const auto& [heads, groups, blocks] : shapes) {
    for (const StateExchange exchange : {StateExchange::all_gather, StateExchange::doubling, StateExchange::chain}) {
      const auto whole = in_blocks(heads, groups, 1, exchange);
      const auto cut = in_blocks(heads, groups, blocks, exchange);
      const OperatorParameters<float> parameters(whole, Decay::slow);
      for (const auto& layout : all_layouts(world.place(), 61, documents_of_61)) {
        for (const bool with_documents : {false, true}) {
          if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !with_documents) continue;
          const auto documents = with_documents ? packed(2, documents_of_61) : DocumentMap::whole_rows(2, 61);
          const auto run = [&](const SequenceOperatorConfig& config) {
            return Call<float>{config, Strategy::state_passing}.run(world, layout, documents, parameters);
          };
          EXPECT_EQ(run(cut), run(whole)) << heads << " heads, " << groups << " groups, " << blocks << " blocks, "
                                          << name_of(exchange) << ", " << layout.description();
          const auto run_backward = [&](const SequenceOperatorConfig& config) {
            return BackwardCall<float>{config, Strategy::state_passing}.run(world, layout, documents,
                                                                            parameters.views());
          };
          EXPECT_TRUE(run_backward(cut) == run_backward(whole))
              << heads << " heads, " << groups << " groups, " << blocks << " blocks, " << name_of(exchange) << ", "
              << layout.description();
        }
      }
    }
  }
}

TEST(HeadBlocks, AreTwoWhereThatCostsNothing) {
  const auto count = [](std::int64_t heads, std::int64_t rows, std::int64_t threads, StateExchange form,
                        std::int64_t segments) {
    const SequenceOperatorConfig config{.heads = heads, .head_dim = 64, .d_state = 128};
    return krait::impl::head_blocks(config, form, segments, {.rows = rows, .heads = heads, .state_size = 64 * 128}, 4,
                                    threads);
  };
  const auto gather = [&](std::int64_t heads, std::int64_t rows, std::int64_t threads) {
    return count(heads, rows, threads, StateExchange::all_gather, 4);
  };
  EXPECT_EQ(gather(80, 1, 1), 2);
  EXPECT_EQ(gather(81, 1, 1), 2);
  EXPECT_EQ(gather(1, 100, 1), 1);
  // A head of one row is 32 KiB.
  EXPECT_EQ(gather(64, 1, 1), 2);
  EXPECT_EQ(gather(62, 1, 1), 1);
  EXPECT_EQ(gather(62, 2, 1), 2);
  // Heads for each thread, in halves and as a whole: 8 and 4, 5 and 3, 10 and 5, 1 and 1, 3 and 2; segments of rows.
  EXPECT_EQ(gather(128, 1, 16), 2);
  EXPECT_EQ(gather(80, 1, 16), 1);
  EXPECT_EQ(gather(80, 2, 16), 2);
  EXPECT_EQ(gather(80, 1, 96), 1);
  EXPECT_EQ(gather(64, 1, 24), 1);
  EXPECT_EQ(gather(80, 1, 200000), 2);
  EXPECT_EQ(count(80, 1, 1, StateExchange::doubling, 2), 2);
  EXPECT_EQ(count(80, 1, 1, StateExchange::doubling, 1), 1);
  EXPECT_EQ(count(80, 1, 1, StateExchange::chain, 4), 1);
}

TEST(HeadBlocks, MustBeThereAndAgree) {
  const auto world = Communicator::world(Exec());
  EXPECT_THAT([] { make_sequence_operator<float>(Strategy::state_passing, {.heads = 4, .head_blocks = 5}); },
              ThrowsMessage<ConfigError>(HasSubstr("head_blocks is 5, expected 0 to 4")));
  if (world.size() == 1) return;
  const auto config = in_blocks(4, 1, world.rank() == 1 ? 2 : 1, StateExchange::doubling);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto layout = SequenceLayout::contiguous(world, 40);
  const auto call = [&] {
    const auto documents = DocumentMap::whole_rows(1, 40);
    (void)Call<float>{config, Strategy::state_passing}.run(world, layout, documents, parameters);
  };
  EXPECT_THAT(call, ThrowsMessage<LayoutError>(HasSubstr("disagree on the blocks of heads, rank 0 has 1 and rank 1")));
}

/// Seconds that this rank waits in a forward whose first rank is late with what it makes of the last heads, while the
/// others take as long for what they do first with the states that enter.
double waited(const Communicator& world, std::int64_t blocks, std::chrono::milliseconds time) {
  const auto config = in_blocks(4, 1, blocks, StateExchange::all_gather);
  const OperatorParameters<float> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::contiguous(world, 64);
  const auto documents = DocumentMap::whole_rows(1, 64);
  const auto op = make_sequence_operator<float>(Strategy::state_passing, config);
  const auto run = [&] {
    (void)Call<float>{config, Strategy::state_passing}.run(*op, world, layout, documents, parameters);
  };
  const bool is_late = world.rank() == 0;
  return seconds_waited(world, is_late ? "krait::ssd_scan_summarize[" : "krait::ssd_scan[",
                        is_late ? static_cast<int>(blocks - 1) : 0, time, run);
}

TEST(HeadBlocks, StatesTravelMeanwhile) {
  if (!krait::impl::is_host_execution<Exec>) GTEST_SKIP() << "kernels begin when the host does not see it";
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "nothing travels";
  constexpr std::chrono::milliseconds time{600};
  const double whole = waited(world, 1, time);
  const double halves = waited(world, 2, time);
  if (world.rank() == 0) return;
  EXPECT_GT(whole, 0.5);
  EXPECT_LT(halves, 0.3);
}

TEST(HeadBlocks, AreSummarizedBeforeTheFirstIsWaitedFor) {
  const auto world = Communicator::world(Exec());
  const auto config = in_blocks(6, 2, 3, StateExchange::doubling);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto layout = SequenceLayout::zigzag(world, 64);
  const auto op = make_sequence_operator<float>(Strategy::state_passing, config);
  const auto run = [&] {
    (void)Call<float>{config, Strategy::state_passing}.run(*op, world, layout, DocumentMap::whole_rows(1, 64),
                                                           parameters);
  };
  run();
  std::vector<std::string> steps;
  {
    const CallbackRecorder recorder;
    run();
    for (const auto& kernel : recorder.kernels()) {
      for (const char* const step : {"krait::StatePassing::seal", "krait::ssd_scan["})
        if (kernel.label.rfind(step, 0) == 0) steps.emplace_back(step);
    }
  }
  const std::string seal = "krait::StatePassing::seal";
  const std::string scan = "krait::ssd_scan[";
  EXPECT_THAT(steps, testing::ElementsAre(seal, seal, seal, scan, scan, scan));
}

}  // namespace
