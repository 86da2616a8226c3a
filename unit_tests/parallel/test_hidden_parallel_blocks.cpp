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

/// Whether blocks end inside a group on some rank.
bool splits_groups(const SequenceOperatorConfig& config, int ranks) {
  const krait::HeadPartition heads({0, ranks}, {config.heads, config.head_dim, config.groups, config.d_state},
                                   config.divisibility);
  const std::int64_t blocks = krait::impl::shared_head_blocks(config, ranks, false);
  for (int r = 0; r < ranks; ++r)
    for (std::int64_t k = 1; k < blocks; ++k)
      if (heads.block(r, k, blocks).begin % heads.heads_per_group() != 0) return true;
  return false;
}

/// Elements of rows of `width` in columns [begin, end), or the others.
std::vector<double> columns_of(const std::vector<double>& values, std::int64_t width, std::int64_t begin,
                               std::int64_t end, bool inside) {
  std::vector<double> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::int64_t column = static_cast<std::int64_t>(i) % width;
    if ((begin <= column && column < end) == inside) result.push_back(values[i]);
  }
  return result;
}

/// Expects gradients of several blocks to have the bits of one, but those of B and C, and of what makes them, where
/// blocks add up parts of a group.
template <Scalar T>
class SameGradients {
 public:
  SameGradients(const SequenceOperatorConfig& config, int ranks)
      : config_(config), exact_(!splits_groups(config, ranks)) {}

  /// \param width, of_a_channel  columns of a row, and of each channel x | B | C in it
  void expect(const std::vector<double>& got, const std::vector<double>& want, std::int64_t width,
              std::int64_t of_a_channel, const char* what) const {
    const std::int64_t begin = config_.d_inner() * of_a_channel;
    const std::int64_t end = config_.conv_channels() * of_a_channel;
    EXPECT_TRUE(columns_of(got, width, begin, end, false) == columns_of(want, width, begin, end, false)) << what;
    const auto groups = columns_of(got, width, begin, end, true);
    const auto wanted = columns_of(want, width, begin, end, true);
    if (exact_) {
      EXPECT_TRUE(groups == wanted) << what;
    } else {
      EXPECT_LE(relative_rms(groups, wanted), tolerance) << what;
    }
  }
  void expect(const NamedGradients& got, const NamedGradients& want) const {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      const auto& [name, values] = got[i];
      if (name.starts_with("conv")) {
        const std::int64_t taps = name == "conv_weight" ? config_.d_conv : 1;
        expect(values, want[i].second, taps * config_.conv_channels(), taps, name.c_str());
      } else {
        EXPECT_TRUE(values == want[i].second) << name;
      }
    }
  }
  void expect(const Gradients& got, const Gradients& want) const {
    expect(got.dxBCdt, want.dxBCdt, config_.input_width(), 1, "dxBCdt");
    expect(got.parameters, want.parameters);
  }

 private:
  /// In bfloat16 what one block has left is rounded by up to 2^-8, and the sum with the next one by as much again.
  static constexpr double tolerance = sizeof(T) == 2 ? 2 * 0x1p-8 : split_tolerance<T>();

  SequenceOperatorConfig config_;
  bool exact_;
};

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
    const auto run_backward = [&](const SequenceOperatorConfig& config, Saving saving, bool overwrite_dy) {
      return BackwardCall<T>{config, Strategy::hidden_parallel, saving, overwrite_dy}.run(world, layout, documents,
                                                                                          parameters.views());
    };
    const auto gradients = run_backward(cut, Saving::lean, false);
    const SameGradients<T> same(cut, world.size());
    same.expect(gradients, run_backward(whole, Saving::lean, false));
    EXPECT_TRUE(run_backward(cut, Saving::lean, true) == gradients);
    EXPECT_TRUE(run_backward(cut, Saving::full, false) == gradients);
    EXPECT_TRUE(run_backward(cut, Saving::full, true) == gradients);
  });
}

// Of gradients, those that are no sums over blocks.
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
          const SameGradients<float> same(cut, world.size());
          same.expect(values_of(got.dxBCdt), values_of(one.dxBCdt), cut.input_width(), 1, "dxBCdt");
          same.expect(values_of(got.dinitial.conv), values_of(one.dinitial.conv),
                      cut.conv_channels() * (cut.d_conv - 1), cut.d_conv - 1, "dinitial.conv");
          EXPECT_EQ(values_of(got.dinitial.ssm), values_of(one.dinitial.ssm));
          same.expect(got.parameters, one.parameters);
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

/// Bytes and calls of the backward alone: as many more as there are parts, of which B and C are one.
TEST(HiddenParallelBlocks, SendTheSameBytesBackward) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "nothing is sent";
  for_all_cases(world, 61, documents_of_61,
                [&](const auto& whole, const auto& cut, const auto& layout, const auto& documents) {
                  const OperatorParameters<float> parameters(whole, Decay::slow);
                  for (const Saving saving : {Saving::lean, Saving::full}) {
                    const auto sent = [&](const SequenceOperatorConfig& config) {
                      const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
                      const BackwardCall<float> call{config, Strategy::hidden_parallel, saving};
                      (void)call.run(*op, world, layout, documents, parameters.views());  // also agrees on the layout
                      const auto before = world.counters()[CommOperation::all_to_all_v];
                      (void)call.run(*op, world, layout, documents, parameters.views());
                      const auto after = world.counters()[CommOperation::all_to_all_v];
                      return std::pair(after.bytes_sent - before.bytes_sent, after.calls - before.calls);
                    };
                    const auto [bytes, calls] = sent(whole);
                    const auto [cut_bytes, cut_calls] = sent(cut);
                    EXPECT_EQ(cut_bytes, bytes);
                    EXPECT_EQ(calls, 4);
                    const std::int64_t blocks = krait::impl::shared_head_blocks(cut, world.size(), false);
                    const std::int64_t alone = blocks == 1 ? 0 : saving == Saving::lean ? 2 : 1;  // B and C
                    EXPECT_EQ(cut_calls, 4 * blocks + alone);
                  }
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
    const auto part_rounding = 128 * (shape.blocks + 1);
    for (const Saving saving : {Saving::lean, Saving::full}) {
      for (const bool overwrite : {false, true}) {
        EXPECT_LE(cut.backward_workspace_bytes(world, layout, 3, saving, overwrite),
                  whole.backward_workspace_bytes(world, layout, 3, saving, overwrite) +
                      3 * 4 * static_cast<std::size_t>(part_rounding));
      }
      EXPECT_LE(cut.backward_room(world, layout, 3, saving),
                whole.backward_room(world, layout, 3, saving) + part_rounding);
    }
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

/// The first rank is late: the others wait for it with one block of heads, and do something else with two.
template <class Waited>
void expect_travel_meanwhile(const Waited& seconds) {
  if (!krait::impl::is_host_execution<Exec>) GTEST_SKIP() << "kernels begin when the host does not see it";
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "nothing travels";
  constexpr std::chrono::milliseconds time{600};
  const double whole = seconds(world, 1, time);
  const double halves = seconds(world, 2, time);
  if (world.rank() == 0) return;
  EXPECT_GT(whole, 0.5);
  EXPECT_LT(halves, 0.3);
}

TEST(HiddenParallelBlocks, TravelMeanwhile) { expect_travel_meanwhile(waited); }

/// The same of a forward and backward; the first rank is late with what the backward packs of its last heads.
double waited_backward(const Communicator& world, std::int64_t blocks, std::chrono::milliseconds time) {
  const std::int64_t ranks = world.size();
  const auto config = in_blocks(2 * ranks, 1, blocks, world);
  const OperatorParameters<float> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::contiguous(world, 2 * ranks);
  const auto documents = DocumentMap::whole_rows(1, 2 * ranks);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const auto run = [&] {
    (void)BackwardCall<float>{config, Strategy::hidden_parallel}.run(*op, world, layout, documents, parameters.views());
  };
  const bool is_late = world.rank() == 0;
  // x | B | C | dt, then dy; or B | C, then of every block x | dt, then dy.
  const int last = blocks == 1 ? 0 : static_cast<int>(2 * blocks - 1);
  return seconds_waited(world, is_late ? "krait::redistribution::pack_columns[" : "krait::ssd_scan_backward[",
                        is_late ? last : 0, time, run);
}

TEST(HiddenParallelBlocks, GradientsTravelMeanwhile) { expect_travel_meanwhile(waited_backward); }

/// Of the kernels of a run, in order, those that are looked for, without those that add up what they leave.
template <class Run>
std::vector<std::string> kernels_of(const Run& run, const std::vector<std::string>& steps) {
  std::vector<std::string> result;
  const CallbackRecorder recorder;
  run();
  for (const auto& kernel : recorder.kernels())
    for (const std::string& step : steps)
      if (kernel.label.find("::" + step + "[") != std::string::npos && kernel.label.ends_with("]"))
        result.push_back(step);
  return result;
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
  return kernels_of(run, {"pack", "causal_conv1d", "ssd_scan", "unpack_part"});
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

TEST(HiddenParallelBlocks, AreWorkedOnOneAfterTheOtherBackward) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "one block";
  const auto config = in_blocks(16, 1, 2, world);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto layout = SequenceLayout::zigzag(world, 64);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const auto steps_of = [&](Saving saving, bool overwrite_dy) {
    const auto run = [&] {
      (void)BackwardCall<float>{config, Strategy::hidden_parallel, saving, overwrite_dy}.run(
          *op, world, layout, DocumentMap::whole_rows(1, 64), parameters.views());
    };
    run();
    return kernels_of(run, {"pack_columns", "ssd_scan_backward", "causal_conv1d_backward", "unpack_sum_part"});
  };
  for (const bool overwrite_dy : {false, true}) {
    // B and C, x and dt of the first heads, their dy, and of the last heads.
    EXPECT_THAT(
        steps_of(Saving::lean, overwrite_dy),
        ElementsAre("pack_columns", "pack_columns", "pack_columns", "pack_columns", "pack_columns", "ssd_scan_backward",
                    "causal_conv1d_backward", "ssd_scan_backward", "causal_conv1d_backward", "causal_conv1d_backward",
                    "unpack_sum_part", "unpack_sum_part", "unpack_sum_part"));
    EXPECT_THAT(steps_of(Saving::full, overwrite_dy),
                ElementsAre("pack_columns", "pack_columns", "ssd_scan_backward", "causal_conv1d_backward",
                            "ssd_scan_backward", "causal_conv1d_backward", "causal_conv1d_backward", "unpack_sum_part",
                            "unpack_sum_part", "unpack_sum_part"));
  }
}

TEST(HiddenParallelBlocks, MustAgreeBackward) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) GTEST_SKIP() << "nobody to agree with";
  const auto same = in_blocks(16, 1, 1, world);
  const auto other = in_blocks(16, 1, world.rank() == 1 ? 2 : 1, world);
  const OperatorParameters<float> parameters(same, Decay::initialised);
  const auto layout = SequenceLayout::contiguous(world, 40);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, other);
  const auto xBCdt = make_shard<float>(layout, 1, same.input_width(), normal_values(3, 40, same.input_width()));
  const auto dy = make_shard<float>(layout, 1, same.d_inner(), normal_values(4, 40, same.d_inner()));
  const auto dxBCdt = poisoned_view<Array<float***>>(1, layout.local_length(), same.input_width());
  const Array<std::byte*> workspace("krait::test::workspace",
                                    op->backward_workspace_bytes(world, layout, 1, Saving::lean, false));
  const auto call = [&] {
    op->backward(Exec(), world, layout, DocumentMap::whole_rows(1, 40), parameters.views(), {},
                 {.xBCdt = xBCdt, .dy = dy, .dxBCdt = dxBCdt, .workspace = workspace});
  };
  EXPECT_THAT(call, ThrowsMessage<LayoutError>(HasSubstr("disagree on the blocks of heads, rank 0 has 1 and rank 1")));
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
