// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The mixer against the double-precision reference, on any number of ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/ops/projection.hpp>
#include <mixer/mixer_problem.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

/// NMSE bound of a float mixer against the reference: the kernels' 1e-10 each, five of them in a row.
constexpr double float_rms = 2.3e-5;

template <Scalar T>
void compare_with_reference(const MambaConfig& config, std::int64_t rows, double tolerance) {
  const auto world = Communicator::world(Exec());
  MambaMixer<T> mixer(Exec(), config, on(world));
  mixer.initialize(7);
  for (const bool with_documents : {false, true}) {
    const auto documents = documents_of_53(rows, with_documents);
    const auto whole = reference_output(mixer, documents);
    for (const auto& layout : all_layouts(world.place(), 53, cu_of_53)) {
      if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !with_documents) continue;
      EXPECT_LE(relative_rms(run_mixer(mixer, world, layout, documents), shard_of_whole(whole, layout)), tolerance)
          << layout.description() << ", rank " << world.rank();
    }
  }
}

TEST(Mixer, EqualsTheReferenceDouble) {
  for (const std::int64_t groups : {1, 2, 4, 8}) compare_with_reference<double>(small_mixer(groups), 2, 1e-12);
}

TEST(Mixer, EqualsTheReferenceFloat) { compare_with_reference<float>(small_mixer(2), 1, float_rms); }

TEST(Mixer, EveryArgument) {
  MambaConfig config = small_mixer(4);
  config.bias = true;
  config.conv_bias = false;
  config.D_has_hdim = true;
  config.norm_before_gate = true;
  config.dt_limit = {0.005, 0.05};
  compare_with_reference<double>(config, 1, 1e-12);
  config.rmsnorm = false;
  config.norm_before_gate = false;
  config.activation = Activation::none;
  config.d_conv = 2;
  config.expand = 1;
  compare_with_reference<double>(config, 1, 1e-12);
  config.d_conv = 1;
  config.heads = 12;
  compare_with_reference<double>(config, 1, 1e-12);
}

TEST(Mixer, AnyLength) {
  const auto world = Communicator::world(Exec());
  MambaMixer<double> mixer(Exec(), small_mixer(4), on(world));
  mixer.initialize(7);
  for (const std::int64_t length : {1, 2, 3, 5, 8, 16, 17, 33}) {
    const auto documents = DocumentMap::whole_rows(1, length);
    const auto layout = SequenceLayout::zigzag(world, length);
    EXPECT_LE(relative_rms(run_mixer(mixer, world, layout, documents),
                           shard_of_whole(reference_output(mixer, documents), layout)),
              1e-12)
        << length;
  }
}

// The acceptance bound of a split: the same mixer on one rank, same scalar.
template <Scalar T>
void compare_with_one_rank(Strategy strategy, std::int64_t groups) {
  const auto world = Communicator::world(Exec());
  MambaMixer<T> mixer(Exec(), small_mixer(groups), on(world, strategy));
  mixer.initialize(7);
  for (const std::int64_t rows : {1, 3}) {
    const auto documents = DocumentMap::whole_rows(rows, 53);
    const auto alone = SequenceLayout::contiguous(Place{}, 53);
    const auto values = run_mixer(mixer, Communicator::self(), alone, documents);
    const Array<double***> whole("krait::test::whole", static_cast<std::size_t>(rows), 53, 24);
    std::copy(values.begin(), values.end(), whole.data());
    for (const auto& layout : all_layouts(world.place(), 53, {0, 53}))
      EXPECT_LE(relative_rms(run_mixer(mixer, world, layout, documents), shard_of_whole(whole, layout)),
                split_tolerance<T>())
          << name_of(strategy) << ", " << layout.description() << ", rows " << rows << ", groups " << groups;
  }
}

template <Scalar T>
void compare_with_one_rank(std::int64_t groups) {
  for (const Strategy strategy : shared_strategies) compare_with_one_rank<T>(strategy, groups);
}

TEST(Mixer, SplitChangesNothingFloat) {
  for (const std::int64_t groups : {1, 2, 4, 8}) compare_with_one_rank<float>(groups);
}
TEST(Mixer, SplitChangesNothingDouble) {
  for (const std::int64_t groups : {1, 2, 4, 8}) compare_with_one_rank<double>(groups);
}
TEST(Mixer, SplitChangesNothingBfloat16) { compare_with_one_rank<bfloat16>(2); }
TEST(Mixer, SplitChangesNothingFloat16) { compare_with_one_rank<float16>(2); }

TEST(Mixer, SequenceFirstAndPackedTensorsAreJustStrides) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 40);
  const auto documents = DocumentMap::whole_rows(2, 40);
  const auto want = run_mixer(mixer, world, layout, documents);

  const auto hidden = make_shard<float>(layout, 2, 24, normal_values(21, 40, 24));
  const auto local = static_cast<std::size_t>(layout.local_length());
  const Array<float***> hidden_lbd("krait::test::hidden", local, 2, 24);
  const Array<float***> out_lbd("krait::test::out", local, 2, 24);
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t i = 0; i < local; ++i)
      for (std::size_t c = 0; c < 24; ++c) hidden_lbd(i, b, c) = hidden(b, i, c);
  const auto as_bld = [&](const Array<float***>& view) {
    return make_tensor<float***, Exec, 3>(view.data(), {2, layout.local_length(), 24}, {24, 48, 1});
  };
  mixer.forward(exec, as_bld(hidden_lbd), layout, documents, as_bld(out_lbd));
  exec.fence("krait::test: forward is done");
  // Not the same bits: other strides may lead to another matrix product.
  EXPECT_LE(relative_rms(values_of(as_bld(out_lbd)), want), split_tolerance<float>());
}

TEST(Mixer, TheOutputMayReplaceTheInput) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 40);
  const auto want = run_mixer(mixer, world, layout, DocumentMap::whole_rows(2, 40));
  const auto hidden = make_shard<float>(layout, 2, 24, normal_values(21, 40, 24));
  mixer.forward(exec, hidden, layout, hidden);
  exec.fence("krait::test: forward is done");
  EXPECT_EQ(values_of(hidden), want);
}

// Gate, norm and out_proj go by blocks of tokens: a rank has several of them and one that is shorter, one rank has
// none.
TEST(Mixer, BlocksOfTokensChangeNothing) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  const std::int64_t block = projection_block(exec);
  if (block > 4096) GTEST_SKIP() << "one block";
  const std::int64_t length = 2 * block + block / 2 + 1;
  std::vector<std::vector<std::int64_t>> tokens(static_cast<std::size_t>(world.size()));
  for (std::int64_t t = 0; t < length; ++t)
    tokens[static_cast<std::size_t>(t < block / 3 ? world.size() - 1 : world.size() > 2 ? 1 : 0)].push_back(t);
  const auto layout = SequenceLayout::explicit_tokens(world, tokens);
  const auto local = layout.local_length();
  for (const Strategy strategy : shared_strategies) {
    MambaMixer<float> mixer(exec, small_mixer(2), on(world, strategy));
    mixer.initialize(7);
    for (const std::int64_t rows : {1, 3}) {
      const auto documents = packed(rows, {0, 5, block / 2, length});
      const auto want = TrainingStep<float>(mixer, layout, rows);
      MambaActivations<float> kept;
      mixer.forward(exec, world, want.hidden, layout, documents, want.out, kept);
      const auto got = run_mixer(mixer, world, layout, documents);
      EXPECT_LE(relative_rms(got, values_of(want.out)), split_tolerance<float>())
          << name_of(strategy) << ", rows " << rows;
      // Sequence first, and the output in place of the input.
      const Array<float***> memory("krait::test::hidden", static_cast<std::size_t>(local),
                                   static_cast<std::size_t>(rows), 24);
      const auto hidden = make_tensor<float***, Exec, 3>(memory.data(), {rows, local, 24}, {24, 24 * rows, 1});
      Kokkos::deep_copy(exec, hidden, want.hidden);
      mixer.forward(exec, world, hidden, layout, documents, hidden);
      exec.fence("krait::test: forward is done");
      EXPECT_LE(relative_rms(values_of(hidden), got), split_tolerance<float>())
          << name_of(strategy) << ", rows " << rows;
    }
  }
}

TEST(Mixer, PaddedLayoutWithoutDocumentsGivesZerosAtPads) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<double> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 2 * world.size() + 1, Policy::tail_pad);
  const auto hidden = make_shard<double>(layout, 1, 24, normal_values(21, layout.length(), 24));
  const auto out = poisoned_view<Array<double***>>(1, layout.local_length(), 24);
  mixer.forward(exec, hidden, layout, out);
  exec.fence("krait::test: forward is done");
  for (std::int64_t i = 0; i < layout.local_length(); ++i) {
    const bool pad = layout.source_token(layout.global_of_local(i)) < 0;
    EXPECT_EQ(out(0, static_cast<std::size_t>(i), 3) == 0, pad);
  }
}

TEST(Mixer, RefusesWhatDoesNotFit) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  const auto layout = SequenceLayout::zigzag(world, 40);
  const auto wrong = make_shard<float>(layout, 1, 23, normal_values(1, 40, 23));
  const auto right = make_shard<float>(layout, 1, 24, normal_values(1, 40, 24));
  EXPECT_THAT([&] { mixer.forward(exec, wrong, layout, right); },
              ThrowsMessage<ShapeError>(HasSubstr("hidden is (1, ")));
  EXPECT_THAT([&] { mixer.forward(exec, right, layout, wrong); }, ThrowsMessage<ShapeError>(HasSubstr("out is (1, ")));
  EXPECT_THAT([&] { mixer.forward(exec, right, layout, DocumentMap::whole_rows(1, 39), right); },
              ThrowsMessage<LayoutError>(HasSubstr("39")));
  const auto other = SequenceLayout::zigzag(Place{0, world.size() + 1}, 40);
  EXPECT_THAT([&] { mixer.forward(exec, right, other, right); },
              ThrowsMessage<LayoutError>(HasSubstr("for rank 0 of " + std::to_string(world.size() + 1))));
  const auto packed = SequenceLayout::zigzag_docs(world, {0, 20, 40});
  EXPECT_THAT([&] { mixer.forward(exec, right, packed, right); }, ThrowsMessage<LayoutError>(HasSubstr("DocumentMap")));
  // Batch rows differ between ranks: everybody throws.
  if (world.size() > 1) {
    const auto mine = make_shard<float>(layout, world.rank() == 1 ? 2 : 1, 24, normal_values(1, 40, 24));
    EXPECT_THAT([&] { mixer.forward(exec, mine, layout, mine); },
                ThrowsMessage<LayoutError>(HasSubstr("rank 0 has 1 and rank 1 has 2")));
  }
  world.barrier();
}

// Only the last rank's layout is cut by documents: it refuses before any message, and so does everybody.
TEST(Mixer, OneRanksMissingDocumentsAreEverybodysError) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  const auto right = SequenceLayout::zigzag(world, 40);
  const auto packed = SequenceLayout::zigzag_docs(world, {0, 20, 40});
  const auto& layout = world.rank() == world.size() - 1 ? packed : right;
  const auto hidden = make_shard<float>(layout, 1, 24, normal_values(1, 40, 24));
  EXPECT_THAT([&] { mixer.forward(exec, hidden, layout, hidden); },
              ThrowsMessage<LayoutError>(HasSubstr("a DocumentMap is needed")));
  const auto documents = DocumentMap::whole_rows(1, 40);
  mixer.initialize(7);
  EXPECT_LE(relative_rms(run_mixer(mixer, world, right, documents),
                         shard_of_whole(reference_output(mixer, documents), right)),
            float_rms);
}

// Two mixers of a stack share a workspace and see another layout and batch in every call, groups of other ranks
// between.
TEST(Mixer, LayoutsBatchesAndGroupsMayChangeFromCallToCall) {
  const auto world = Communicator::world(Exec());
  const auto halves = world.split(world.rank() % 2, world.rank());
  MambaMixer<double> first(Exec(), small_mixer(2), on(world));
  MambaMixer<double> second(Exec(), small_mixer(4), on(world), first.workspace());
  first.initialize(7);
  second.initialize(8);
  std::size_t bytes = 0;
  for (int call = 0; call < 10; ++call) {
    const auto& group = call % 3 == 2 ? halves : world;
    const std::int64_t length = 10 + (call * 37) % 50;
    const auto documents = DocumentMap::from_cu_seqlens_per_row(
        std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(1 + call % 3), {0, 3, length}), length);
    const auto layout = all_layouts(group.place(), length, {0, 3, length})[static_cast<std::size_t>(call % 4)];
    for (auto* mixer : {&first, &second})
      EXPECT_LE(relative_rms(run_mixer(*mixer, group, layout, documents),
                             shard_of_whole(reference_output(*mixer, documents), layout)),
                1e-12)
          << layout.description() << ", call " << call;
    EXPECT_GE(first.workspace()->bytes(), bytes);
    bytes = first.workspace()->bytes();
  }
}

TEST(Mixer, LocalIsRefusedOnSeveralRanks) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1) return;
  const Parallel parallel{.context = world, .tensor = Communicator::self(), .strategy = Strategy::local};
  EXPECT_THAT([&] { MambaMixer<float>(Exec(), small_mixer(8), parallel); },
              ThrowsMessage<ConfigError>(HasSubstr("the strategy is local")));
}

TEST(Mixer, StrictRanksAreCheckedAtConstruction) {
  const auto world = Communicator::world(Exec());
  if (world.size() == 1 || 8 % world.size() == 0) return;
  const Parallel strict{.context = world, .strategy = Strategy::hidden_parallel};
  EXPECT_THAT([&] { MambaMixer<float>(Exec(), small_mixer(8), strict); }, ThrowsMessage<ConfigError>(HasSubstr("8")));
}

}  // namespace
