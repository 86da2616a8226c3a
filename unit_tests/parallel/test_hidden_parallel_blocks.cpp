// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens for heads by blocks of heads: the same bits and bytes, and tokens that travel while others are worked on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/core/kokkos_shims.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <krait/parallel/hidden_parallel.hpp>
#include <krait/parallel/relay.hpp>
#include <parallel/compare.hpp>
#include <parallel/late_kernel.hpp>
#include <parallel/states_call.hpp>
#include <support/callback_recorder.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

SequenceOperatorConfig in_blocks(std::int64_t heads, std::int64_t groups, std::int64_t blocks,
                                 const Communicator& world) {
  SequenceOperatorConfig config = small(heads, groups, world);
  config.head_blocks = blocks;
  return config;
}

struct Shape {
  std::int64_t heads, groups, blocks;
};
/// Even and uneven shares; more groups than blocks, blocks that share a group, and that end inside one; more blocks
/// than a rank has heads.
const std::vector<Shape> shapes = {{16, 1, 2}, {24, 8, 2}, {24, 3, 3}, {19, 1, 2}, {22, 11, 4}, {9, 3, 8}};

std::string name(const Shape& shape) {
  return std::to_string(shape.heads) + " heads, " + std::to_string(shape.groups) + " groups, " +
         std::to_string(shape.blocks) + " blocks";
}

/// For every shape, layout and documents: check(whole, cut, layout, documents).
template <class Check>
void for_all_cases(const Communicator& world, std::int64_t length, const std::vector<std::int64_t>& cu,
                   const Check& check) {
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(name(shape));
    const auto whole = in_blocks(shape.heads, shape.groups, 1, world);
    const auto cut = in_blocks(shape.heads, shape.groups, shape.blocks, world);
    for (const auto& layout : all_layouts(world.place(), length, cu)) {
      SCOPED_TRACE(layout.description());
      if (layout.kind() != SequenceLayout::Kind::zigzag_docs)
        check(whole, cut, layout, DocumentMap::whole_rows(2, length));
      check(whole, cut, layout, packed(2, cu));
    }
  }
}

template <Scalar T>
void expect_same_bits(std::int64_t length, const std::vector<std::int64_t>& cu) {
  const auto world = Communicator::world(Exec());
  for_all_cases(world, length, cu, [&](const auto& whole, const auto& cut, const auto& layout, const auto& documents) {
    const OperatorParameters<T> parameters(whole, Decay::slow);
    const auto run = [&](const SequenceOperatorConfig& config, bool overwrite_input) {
      return Call<T>{config, Strategy::hidden_parallel, overwrite_input}.run(world, layout, documents, parameters);
    };
    const auto one = run(whole, false);
    EXPECT_EQ(run(cut, false), one);
    EXPECT_EQ(run(cut, true), one);
    const auto run_backward = [&](const SequenceOperatorConfig& config, Saving saving) {
      return BackwardCall<T>{config, Strategy::hidden_parallel, saving}.run(world, layout, documents,
                                                                            parameters.views());
    };
    const auto gradients = run_backward(whole, Saving::lean);
    EXPECT_TRUE(run_backward(cut, Saving::lean) == gradients);
    EXPECT_TRUE(run_backward(cut, Saving::full) == gradients);
  });
}

TEST(HiddenParallelBlocks, ChangeNoBit) { expect_same_bits<float>(61, documents_of_61); }
TEST(HiddenParallelBlocks, ChangeNoBitOfTwoBytes) { expect_same_bits<bfloat16>(61, documents_of_61); }
/// Fewer tokens than ranks: empty shards.
TEST(HiddenParallelBlocks, ChangeNoBitWithoutTokens) { expect_same_bits<float>(3, {0, 1, 3}); }

TEST(HiddenParallelBlocks, AreOneRank) {
  const auto world = Communicator::world(Exec());
  for (const Shape& shape : {Shape{16, 1, 2}, Shape{22, 11, 4}, Shape{24, 3, 3}}) {
    const auto config = in_blocks(shape.heads, shape.groups, shape.blocks, world);
    compare_with_one_rank<float>(Strategy::hidden_parallel, config, 2, 61, documents_of_61, Decay::slow);
    compare_with_one_rank<bfloat16>(Strategy::hidden_parallel, config, 1, 61, documents_of_61, Decay::slow);
    compare_backward_with_one_rank<float>(Strategy::hidden_parallel, config, 2, 61, documents_of_61, Decay::slow);
  }
}

TEST(HiddenParallelBlocks, HandOnStatesOfDocuments) {
  const auto world = Communicator::world(Exec());
  for_all_cases(
      world, 61, documents_of_61, [&](const auto& whole, const auto& cut, const auto& layout, const auto& documents) {
        const OperatorParameters<float> parameters(whole, Decay::slow);
        const auto initial = States<float, float>::normal(whole, documents.documents(), 5);
        const auto dfinal = States<float, float>::normal(whole, documents.documents(), 7);
        const auto run = [&](const SequenceOperatorConfig& config, Saving saving) {
          const auto x = make_shard<float>(layout, 2, config.input_width(),
                                           normal_values(3, layout.length(), config.input_width()));
          const auto dy = make_shard<float>(layout, 2, config.d_inner(), normal_values(4, layout.length(), 1000));
          return StatesCall<float>{.config = config, .strategy = Strategy::hidden_parallel, .saving = saving}.run(
              world, layout, documents, parameters.views(), x, dy, initial, dfinal);
        };
        const auto one = run(whole, Saving::lean);
        for (const Saving saving : {Saving::lean, Saving::full}) {
          const auto got = run(cut, saving);
          EXPECT_EQ(values_of(got.y), values_of(one.y));
          EXPECT_EQ(values_of(got.final.conv), values_of(one.final.conv));
          EXPECT_EQ(values_of(got.final.ssm), values_of(one.final.ssm));
          EXPECT_EQ(values_of(got.dxBCdt), values_of(one.dxBCdt));
          EXPECT_EQ(values_of(got.dinitial.conv), values_of(one.dinitial.conv));
          EXPECT_EQ(values_of(got.dinitial.ssm), values_of(one.dinitial.ssm));
          EXPECT_TRUE(got.parameters == one.parameters);
        }
      });
}

TEST(HiddenParallelBlocks, SendTheSameBytes) {
  const auto world = Communicator::world(Exec());
  for_all_cases(
      world, 61, documents_of_61, [&](const auto& whole, const auto& cut, const auto& layout, const auto& documents) {
        const OperatorParameters<float> parameters(whole, Decay::slow);
        const auto sent = [&](const SequenceOperatorConfig& config) {
          const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
          const auto run = [&] {
            (void)Call<float>{config, Strategy::hidden_parallel}.run(*op, world, layout, documents, parameters);
          };
          run();  // also agrees on the layout
          const auto before = world.counters().total();
          run();
          const auto after = world.counters().total();
          return std::pair(after.bytes_sent - before.bytes_sent, after.messages_sent - before.messages_sent);
        };
        const auto [bytes, messages] = sent(whole);
        const auto [cut_bytes, cut_messages] = sent(cut);
        EXPECT_EQ(cut_bytes, bytes);
        EXPECT_EQ(cut_messages, messages * krait::impl::shared_head_blocks(cut, world.size(), false));
      });
}

TEST(HiddenParallelBlocks, NeedTheSameMemory) {
  const auto world = Communicator::world(Exec());
  const auto layout = SequenceLayout::contiguous(world, std::int64_t{64} * world.size());
  for (const Shape& shape : {Shape{16, 1, 2}, Shape{24, 8, 3}, Shape{19, 1, 2}}) {
    const HiddenParallel<float> whole(in_blocks(shape.heads * world.size(), shape.groups * world.size(), 1, world));
    const HiddenParallel<float> cut(
        in_blocks(shape.heads * world.size(), shape.groups * world.size(), shape.blocks, world));
    const auto rounding = 128 * static_cast<std::int64_t>(shape.blocks - 1);  // every block begins at such a multiple
    for (const bool overwrite : {false, true}) {
      EXPECT_LE(cut.workspace_bytes(world, layout, 3, overwrite),
                whole.workspace_bytes(world, layout, 3, overwrite) + 3 * 4 * static_cast<std::size_t>(rounding));
    }
    EXPECT_LE(cut.room(world, layout, 3).xBCdt, whole.room(world, layout, 3).xBCdt + rounding);
    EXPECT_LE(cut.room(world, layout, 3).y, whole.room(world, layout, 3).y + rounding);
    EXPECT_EQ(cut.saved_bytes(world, layout, 3, Saving::full), whole.saved_bytes(world, layout, 3, Saving::full));
  }
}

TEST(HiddenParallelBlocks, AreAsManyAsAskedForAndEveryRankHasHeads) {
  const auto count = [](std::int64_t heads, std::int64_t asked, int ranks, bool on_device) {
    return krait::impl::shared_head_blocks({.heads = heads, .head_blocks = asked}, ranks, on_device);
  };
  EXPECT_EQ(count(128, 0, 8, false), 1);
  EXPECT_EQ(count(128, 0, 8, true), 2);
  EXPECT_EQ(count(128, 0, 16, true), 2);
  EXPECT_EQ(count(127, 0, 16, true), 1);  // one rank has 7
  EXPECT_EQ(count(128, 0, 1, true), 1);
  EXPECT_EQ(count(128, 4, 1, true), 1);
  EXPECT_EQ(count(128, 1, 8, true), 1);
  EXPECT_EQ(count(128, 5, 8, false), 5);
  EXPECT_EQ(count(10, 5, 4, true), 2);
  EXPECT_EQ(count(3, 3, 8, true), 1);
}

TEST(HiddenParallelBlocks, MustAgree) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "nobody to agree with";
  const auto config = in_blocks(16, 1, world.rank() == 1 ? 2 : 1, world);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto layout = SequenceLayout::contiguous(world, 40);
  const auto call = [&] {
    (void)Call<float>{config, Strategy::hidden_parallel}.run(world, layout, DocumentMap::whole_rows(1, 40), parameters);
  };
  EXPECT_THAT(call, ThrowsMessage<LayoutError>(HasSubstr("disagree on the blocks of heads, rank 0 has 1 and rank 1")));
}

/// Seconds that this rank waits in a forward whose first rank is late with the tokens of the last heads, while the
/// others take as long for the first.
double waited(const Communicator& world, std::int64_t blocks, std::chrono::milliseconds time) {
  // Messages of 136 bytes: Open MPI's shared memory hands on those of up to 256 while their sender does something else.
  const std::int64_t ranks = world.size();
  const auto config = in_blocks(2 * ranks, 1, blocks, world);
  const OperatorParameters<float> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::contiguous(world, 2 * ranks);
  const auto documents = DocumentMap::whole_rows(1, 2 * ranks);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const auto run = [&] {
    (void)Call<float>{config, Strategy::hidden_parallel}.run(*op, world, layout, documents, parameters);
  };
  const bool is_late = world.rank() == 0;
  return seconds_waited(world, is_late ? "krait::redistribution::pack[" : "krait::ssd_scan[",
                        is_late ? static_cast<int>(blocks - 1) : 0, time, run);
}

TEST(HiddenParallelBlocks, TravelMeanwhile) {
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

/// Kernels of a forward, of those that are looked for.
std::vector<std::string> steps_of(const Communicator& world, bool overwrite_input) {
  const auto config = in_blocks(16, 1, 2, world);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto layout = SequenceLayout::zigzag(world, 64);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const auto run = [&] {
    (void)Call<float>{config, Strategy::hidden_parallel, overwrite_input}.run(
        *op, world, layout, DocumentMap::whole_rows(1, 64), parameters);
  };
  run();
  std::vector<std::string> steps;
  const CallbackRecorder recorder;
  run();
  for (const auto& kernel : recorder.kernels())
    for (const char* const step : {"pack", "causal_conv1d", "ssd_scan", "unpack_part"})
      if (kernel.label.find("::" + std::string(step) + "[") != std::string::npos) steps.emplace_back(step);
  return steps;
}

TEST(HiddenParallelBlocks, AreWorkedOnOneAfterTheOther) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "one block";
  for (const bool overwrite_input : {false, true})
    // x of the first heads, B and C, x of the last heads.
    EXPECT_THAT(steps_of(world, overwrite_input),
                ElementsAre("pack", "pack", "causal_conv1d", "causal_conv1d", "ssd_scan", "causal_conv1d", "ssd_scan",
                            "unpack_part", "unpack_part"));
}

TEST(Relay, IsAsLargeAsTheLargerWhereNothingIsInTheWay) {
  const krait::impl::Relay relay({30, 20, 10}, {20, 20, 10});
  EXPECT_EQ(relay.size, 60);
  EXPECT_THAT(relay.old_begin, ElementsAre(0, 30, 50));
  EXPECT_THAT(relay.new_begin, ElementsAre(0, 20, 40));
  const krait::impl::Relay larger({10, 10}, {20, 20});
  EXPECT_EQ(larger.size, 40);
  EXPECT_THAT(larger.old_begin, ElementsAre(20, 30));
}

TEST(Relay, LeavesRoomForWhatIsStillNeeded) {
  const krait::impl::Relay relay({10, 30}, {25, 10});
  EXPECT_EQ(relay.size, 55);
  EXPECT_THAT(relay.old_begin, ElementsAre(15, 25));
  EXPECT_THAT(relay.new_begin, ElementsAre(0, 25));
}

}  // namespace
