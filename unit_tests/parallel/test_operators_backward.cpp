// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backward of every strategy gives the gradients of one rank: all layouts, packed or not, any rank count, whatever
// the forward saved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <limits>
#include <parallel/compare.hpp>
#include <support/random_view.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(HiddenParallelBackward, EqualsOneRankInEveryLayoutFloat) {
  const auto world = Communicator::world(Exec());
  for (const std::int64_t groups : {1, 2, 4, 8})
    compare_backward_with_one_rank<float>(Strategy::hidden_parallel, small(8, groups, world), groups == 2 ? 3 : 1, 61,
                                          documents_of_61, Decay::initialised);
}

TEST(HiddenParallelBackward, EqualsOneRankInEveryLayoutDouble) {
  const auto world = Communicator::world(Exec());
  for (const std::int64_t groups : {1, 2, 4, 8})
    compare_backward_with_one_rank<double>(Strategy::hidden_parallel, small(8, groups, world), groups == 4 ? 3 : 1, 61,
                                           documents_of_61, Decay::slow);
}

TEST(HiddenParallelBackward, EqualsOneRankInHalfPrecision) {
  const auto world = Communicator::world(Exec());
  compare_backward_with_one_rank<bfloat16>(Strategy::hidden_parallel, small(8, 2, world), 1, 61, documents_of_61,
                                           Decay::initialised);
  compare_backward_with_one_rank<float16>(Strategy::hidden_parallel, small(8, 2, world), 1, 61, documents_of_61,
                                          Decay::initialised);
}

TEST(HiddenParallelBackward, UnevenHeadsAndGroups) {
  const auto world = Communicator::world(Exec());
  compare_backward_with_one_rank<double>(Strategy::hidden_parallel, small(7, 7, world), 2, 61, documents_of_61,
                                         Decay::slow);
  compare_backward_with_one_rank<double>(Strategy::hidden_parallel, small(9, 3, world), 1, 61, documents_of_61,
                                         Decay::slow);
  compare_backward_with_one_rank<double>(Strategy::hidden_parallel, small(2, 1, world), 1, 61, documents_of_61,
                                         Decay::slow);  // ranks without heads
}

TEST(HiddenParallelBackward, AnyLength) {
  const auto world = Communicator::world(Exec());
  for (const std::int64_t length : {1, 2, 3, 4, 7, 9, 17})
    compare_backward_with_one_rank<double>(Strategy::hidden_parallel, small(8, 4, world), 2, length,
                                           {0, length / 2, length}, Decay::slow);
}

TEST(LocalBackward, TokensInAnyOrderAndBothSavingModes) {
  const auto config = small(8, 2, Communicator::self());
  const OperatorParameters<double> parameters(config, Decay::slow);
  const auto documents = packed(2, documents_of_61);
  const OneRank<double> one_rank(config, documents, parameters);
  for (const auto& layout : all_layouts(Place{}, 61, documents_of_61)) {
    const auto lean =
        BackwardCall<double>{config, Strategy::local}.run(Communicator::self(), layout, documents, parameters.views());
    one_rank.expect(lean, layout, "local");
    EXPECT_TRUE((BackwardCall<double>{config, Strategy::local, Saving::full}.run(
                     Communicator::self(), layout, documents, parameters.views()) == lean));
  }
}

// Nothing that happens at padding tokens reaches a gradient.
TEST(HiddenParallelBackward, PaddingIsInert) {
  const auto world = Communicator::world(Exec());
  const auto config = small(8, 2, world);
  const OperatorParameters<double> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::zigzag_docs(world, {0, 7, 20, 21}, Policy::tail_pad);
  const auto documents =
      DocumentMap::from_cu_seqlens(layout.padded_boundaries(), layout.real_lengths(), layout.length());
  const auto padded = [&layout](const Values& plain) -> Values {
    return [&layout, plain](std::int64_t b, std::int64_t t, std::int64_t c) {
      const std::int64_t source = layout.source_token(t);
      return source < 0 ? std::numeric_limits<float>::quiet_NaN() : plain(b, source, c);
    };
  };
  const auto input = normal_values(3, 21, config.input_width());
  const auto dy = normal_values(4, 21, config.d_inner());
  const auto got =
      BackwardCall<double>{config, Strategy::hidden_parallel, Saving::lean, false, padded(input), padded(dy)}.run(
          world, layout, documents, parameters.views());
  const auto want = BackwardCall<double>{config, Strategy::local}.run(
      Communicator::self(), SequenceLayout::contiguous(Place{}, 21), DocumentMap::from_cu_seqlens({0, 7, 20, 21}, 21),
      parameters.views());
  std::vector<double> dxBCdt;
  for (std::int64_t i = 0; i < layout.local_length(); ++i)
    for (std::int64_t c = 0; c < config.input_width(); ++c) {
      const std::int64_t source = layout.source_token(layout.global_of_local(i));
      dxBCdt.push_back(source < 0 ? 0 : want.dxBCdt[static_cast<std::size_t>(source * config.input_width() + c)]);
    }
  EXPECT_LE(relative_rms(got.dxBCdt, dxBCdt), 1e-12);
  EXPECT_TRUE(gradients_close(got.parameters, want.parameters, 1e-12));
}

// Change input and gradient of the first token of one document: no other document's gradients move, on any rank.
TEST(HiddenParallelBackward, DocumentsDoNotLeak) {
  const auto world = Communicator::world(Exec());
  const auto config = small(8, 2, world);
  const OperatorParameters<float> parameters(config, Decay::slow);
  const std::vector<std::int64_t> cu = {0, 13, 40, 61};
  const auto documents = DocumentMap::from_cu_seqlens(cu, 61);
  for (const auto& layout : all_layouts(world.place(), 61, cu)) {
    std::vector<std::vector<double>> results;
    for (const float change : {0.0F, 5.0F}) {
      const auto changed = [change](const Values& plain) -> Values {
        return [change, plain](std::int64_t b, std::int64_t t, std::int64_t c) {
          return plain(b, t, c) + (t == 13 || t == 39 ? change : 0.0F);
        };
      };
      results.push_back(BackwardCall<float>{config, Strategy::hidden_parallel, Saving::lean, true,
                                            changed(normal_values(3, 61, config.input_width())),
                                            changed(normal_values(4, 61, config.d_inner()))}
                            .run(world, layout, documents, parameters.views())
                            .dxBCdt);
    }
    bool moved = layout.local_length() == 0;
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      const std::int64_t token = layout.global_of_local(static_cast<std::int64_t>(i) / config.input_width());
      if (13 <= token && token < 40) {
        moved = moved || results[0][i] != results[1][i];
      } else {
        EXPECT_EQ(results[0][i], results[1][i]) << layout.description() << ", token " << token;
      }
    }
    const auto holds_the_document = [&] {
      for (std::int64_t t = 13; t < 40; ++t)
        if (layout.owner(t) == world.rank()) return true;
      return false;
    };
    EXPECT_EQ(moved || !holds_the_document(), true) << layout.description();
  }
}

// One operator, groups of different sizes: the group is an argument of the call.
TEST(HiddenParallelBackward, TheGroupMayChangeFromCallToCall) {
  const auto world = Communicator::world(Exec());
  auto config = small(8, 8, world);
  config.divisibility = Divisibility::uneven;
  const OperatorParameters<double> parameters(config, Decay::slow);
  const auto documents = DocumentMap::whole_rows(1, 40);
  const auto halves = world.split(world.rank() % 2, world.rank());
  const auto op = make_sequence_operator<double>(Strategy::hidden_parallel, config);
  const BackwardCall<double> call{config, Strategy::hidden_parallel, Saving::full};
  const OneRank<double> one_rank(config, documents, parameters);
  for (const auto& group : {world, halves, world}) {
    const auto layout = SequenceLayout::zigzag(group, 40);
    one_rank.expect(call.run(*op, group, layout, documents, parameters.views()), layout, "group");
  }
}

TEST(HiddenParallelBackward, OneCollectiveEachWayWithTheBytesOfTheFormula) {
  const auto world = Communicator::world(Exec());
  for (const std::int64_t groups : {1, 8}) {
    const auto config = small(8, groups, world);
    const OperatorParameters<float> parameters(config, Decay::initialised);
    const auto documents = DocumentMap::whole_rows(3, 80);
    const auto layout = SequenceLayout::zigzag(world, 80);
    const auto heads = HeadPartition(world.place(), {config.heads, config.head_dim, config.groups, config.d_state},
                                     config.divisibility);
    for (const Saving saving : {Saving::lean, Saving::full}) {
      const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
      const BackwardCall<float> call{config, Strategy::hidden_parallel, saving, true};
      (void)call.run(*op, world, layout, documents, parameters.views());
      auto context = world;
      context.reset_counters();
      (void)call.run(*op, world, layout, documents, parameters.views());
      const auto counters = world.counters()[CommOperation::all_to_all_v];
      EXPECT_EQ(counters.calls, world.size() == 1 ? 0 : 4);  // two of the forward
      // Sent with every token of ours: the columns that another rank works on, x, B, C and dt once for the forward,
      // with lean saving once more, and dy. With everybody else's tokens: y, and the gradients of our x, B, C and dt.
      std::int64_t elements = 0;
      for (int rank = 0; rank < world.size(); ++rank) {
        if (rank == world.rank()) continue;
        const std::int64_t times = saving == Saving::lean ? 2 : 1;
        elements +=
            layout.local_length() * (times * heads.projection_width_local(rank, false) + heads.d_inner_local(rank));
        elements +=
            layout.local_length(rank) * (heads.d_inner_local() + heads.projection_width_local(world.rank(), false));
      }
      EXPECT_EQ(counters.bytes_sent, 3 * elements * 4);
    }
  }
}

TEST(HiddenParallelBackward, SameBitsEveryTime) {
  const auto world = Communicator::world(Exec());
  const auto config = small(8, 2, world);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto documents = DocumentMap::from_cu_seqlens(documents_of_61, 61);
  const auto layout = SequenceLayout::zigzag(world, 61);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const BackwardCall<float> call{config, Strategy::hidden_parallel, Saving::lean, true};
  const auto first = call.run(*op, world, layout, documents, parameters.views());
  for (int repeat = 0; repeat < 20; ++repeat)
    EXPECT_TRUE(call.run(*op, world, layout, documents, parameters.views()) == first);
}

// What is not asked for is not formed, and nothing else changes.
TEST(HiddenParallelBackward, GradientsMayBeAbsent) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  const auto config = small(8, 2, world);
  const OperatorParameters<float> parameters(config, Decay::initialised);
  const auto documents = DocumentMap::whole_rows(1, 30);
  const auto layout = SequenceLayout::zigzag(world, 30);
  const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config);
  const auto want =
      BackwardCall<float>{config, Strategy::hidden_parallel}.run(*op, world, layout, documents, parameters.views());
  const auto xBCdt = make_shard<float>(layout, 1, config.input_width(), normal_values(3, 30, config.input_width()));
  const auto dy = make_shard<float>(layout, 1, config.d_inner(), normal_values(4, 30, config.d_inner()));
  const auto dxBCdt = poisoned_view<Array<float***>>(1, layout.local_length(), config.input_width());
  const Array<std::byte*> workspace("krait::test::workspace",
                                    op->backward_workspace_bytes(world, layout, 1, Saving::lean, false));
  op->backward(exec, world, layout, documents, parameters.views(), {},
               {.xBCdt = xBCdt, .dy = dy, .dxBCdt = dxBCdt, .workspace = workspace});
  exec.fence("krait::test: backward is done");
  EXPECT_EQ(values_of(dxBCdt), want.dxBCdt);
}

// Every refusal happens on all ranks, before any message, and a correct call afterwards works.
class BackwardRefusals : public testing::Test {
 protected:
  using Arguments = SequenceOperatorBackwardArguments<float, Exec>;
  using Views = SequenceOperatorGradients<float, Exec>;

  template <class E>
  void refuses(const std::string& text, const std::function<void(Arguments&, Views&)>& spoil) {
    const Exec exec;
    const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config_);
    const auto layout = SequenceLayout::zigzag(world_, 40);
    const auto documents = DocumentMap::whole_rows(1, 40);
    const OperatorParameters<float> parameters(config_, Decay::initialised);
    const OperatorGradients<float> gradients(parameters.views());
    const auto xBCdt = make_shard<float>(layout, 1, config_.input_width(), normal_values(3, 40, config_.input_width()));
    const auto dy = make_shard<float>(layout, 1, config_.d_inner(), normal_values(4, 40, config_.d_inner()));
    const auto dxBCdt = poisoned_view<Array<float***>>(1, layout.local_length(), config_.input_width());
    const Array<std::byte*> workspace("krait::test::workspace",
                                      op->backward_workspace_bytes(world_, layout, 1, Saving::lean, false));
    const Arguments right{.xBCdt = xBCdt, .dy = dy, .dxBCdt = dxBCdt, .workspace = workspace};
    Arguments wrong = right;
    Views wrong_gradients = gradients.views;
    spoil(wrong, wrong_gradients);
    auto context = world_;
    context.reset_counters();
    EXPECT_THAT([&] { op->backward(exec, world_, layout, documents, parameters.views(), wrong_gradients, wrong); },
                ThrowsMessage<E>(HasSubstr(text)));
    EXPECT_EQ(world_.counters()[CommOperation::all_to_all_v].calls, 0);
    op->backward(exec, world_, layout, documents, parameters.views(), gradients.views, right);
    exec.fence("krait::test: backward is done");
  }

  Communicator world_ = Communicator::world(Exec());
  SequenceOperatorConfig config_ = small(8, 8, world_);
  Array<float***> other_{"krait::test::other", 1, 39, 7};
  Array<float*> vector_{"krait::test::vector", 5};
  Array<std::byte*> keep_;
};

TEST_F(BackwardRefusals, TensorsThatDoNotFit) {
  refuses<ShapeError>("xBCdt is (1, 39, 7)", [this](Arguments& a, Views&) { a.xBCdt = other_; });
  refuses<ShapeError>("dy is (1, 39, 7)", [this](Arguments& a, Views&) { a.dy = other_; });
  refuses<ShapeError>("dxBCdt is (1, 39, 7)", [this](Arguments& a, Views&) { a.dxBCdt = other_; });
  refuses<ShapeError>("the gradient of A_log is (5), expected (8)",
                      [this](Arguments&, Views& g) { g.A_log = vector_; });
  refuses<CapacityError>("workspace has 0 bytes", [](Arguments& a, Views&) { a.workspace = {}; });
  refuses<CapacityError>("saved has 0 bytes", [this](Arguments& a, Views&) {
    const auto op = make_sequence_operator<float>(Strategy::hidden_parallel, config_);
    a.saving = Saving::full;
    keep_ = Array<std::byte*>(
        "krait::test::workspace",
        op->backward_workspace_bytes(world_, SequenceLayout::zigzag(world_, 40), 1, Saving::full, false));
    a.workspace = keep_;
  });
  if (world_.size() > 1) refuses<CapacityError>("room is 1 elements at dy", [](Arguments& a, Views&) { a.room = 1; });
}

TEST_F(BackwardRefusals, AGradientWithoutItsParameter) {
  const Array<float**> per_channel("krait::test::D_per_channel", 8, 4);
  refuses<ConfigError>("the gradient of D_per_channel is given, but not the parameter",
                       [&](Arguments&, Views& g) { g.D_per_channel = per_channel; });
}

TEST_F(BackwardRefusals, OneRanksMistakeIsEverybodysError) {
  const int last = world_.size() - 1;
  refuses<ShapeError>(last == 0 ? "dy is" : "rank " + std::to_string(last) + ": ", [&](Arguments& a, Views&) {
    if (world_.rank() == last) a.dy = other_;
  });
}

TEST_F(BackwardRefusals, LocalOnSeveralRanks) {
  if (world_.size() == 1) return;
  const auto op = make_sequence_operator<float>(Strategy::local, config_);
  EXPECT_THAT(
      [&] {
        op->backward(Exec(), world_, SequenceLayout::zigzag(world_, 40), DocumentMap::whole_rows(1, 40), {}, {}, {});
      },
      ThrowsMessage<ConfigError>(HasSubstr("expected 1")));
}

}  // namespace
