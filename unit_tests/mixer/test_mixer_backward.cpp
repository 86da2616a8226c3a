// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Gradients of the mixer: the reference's and finite differences on one rank, one rank's on any number of ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <mixer/mixer_problem.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

/// Every layout of the problem, packed and not, on all ranks and in one order of the tokens on one.
template <Scalar T>
void compare_with_reference(const MambaConfig& config, std::int64_t rows, double tolerance, bool slow = false) {
  const auto world = Communicator::world(Exec());
  MambaMixer<T> mixer(Exec(), config, on(world));
  mixer.initialize(7);
  if (slow) make_slow(mixer);
  for (const bool packed : {false, true}) {
    const auto documents = documents_of_53(rows, packed);
    const auto whole = reference_gradients(mixer, documents);
    for (const auto& layout : all_layouts(world.place(), 53, cu_of_53)) {
      if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !packed) continue;
      whole.expect(train_step(mixer, world, layout, documents), layout, tolerance);
    }
  }
}

TEST(MixerBackward, EqualsTheReferenceDouble) {
  for (const std::int64_t groups : {1, 2, 4, 8})
    compare_with_reference<double>(small_mixer(groups), 2, 1e-12, groups < 4);
}

TEST(MixerBackward, EqualsTheReferenceFloat) { compare_with_reference<float>(small_mixer(2), 1, 2e-4); }

TEST(MixerBackward, EveryArgument) {
  MambaConfig config = small_mixer(4);
  config.bias = true;
  config.conv_bias = false;
  config.D_has_hdim = true;
  config.norm_before_gate = true;
  config.dt_limit = {0.005, 0.05};
  compare_with_reference<double>(config, 1, 1e-12);
  config.rmsnorm = false;
  compare_with_reference<double>(config, 1, 1e-12);
  config.norm_before_gate = false;
  config.activation = Activation::none;
  config.d_conv = 2;
  config.expand = 1;
  compare_with_reference<double>(config, 1, 1e-12);
  config.rmsnorm = true;
  config.d_conv = 1;
  config.heads = 12;
  compare_with_reference<double>(config, 1, 1e-12);
}

TEST(MixerBackward, AnyLengthAndBatch) {
  const auto world = Communicator::world(Exec());
  for (const bool lean : {true, false}) {
    MambaConfig config = small_mixer(4);
    config.use_mem_eff_path = lean;
    MambaMixer<double> mixer(Exec(), config, on(world));
    mixer.initialize(7);
    for (const std::int64_t length : {0, 1, 2, 3, 5, 8, 16, 17, 33}) {
      const std::int64_t rows = length == 5 ? 0 : 2;
      const auto documents = DocumentMap::whole_rows(rows, length);
      const auto layout = SequenceLayout::zigzag(world, length);
      reference_gradients(mixer, documents)
          .expect(train_step(mixer, world, layout, documents), layout, 1e-12, std::to_string(length));
    }
  }
}

// The acceptance bound of a split: the same mixer on one rank, same scalar. What the operator saves changes no bit.
template <Scalar T>
void compare_with_one_rank(Strategy strategy, std::int64_t groups, std::int64_t rows) {
  const auto world = Communicator::world(Exec());
  MambaConfig config = small_mixer(groups);
  MambaMixer<T> lean(Exec(), config, on(world, strategy));
  config.use_mem_eff_path = false;
  MambaMixer<T> full(Exec(), config, on(world, strategy), lean.workspace());
  lean.initialize(7);
  full.initialize(7);
  make_skip_small(lean);
  make_skip_small(full);
  for (const bool packed : {false, true}) {
    const auto documents = documents_of_53(rows, packed);
    const auto whole = one_rank_gradients(lean, documents);
    for (const auto& layout : all_layouts(world.place(), 53, cu_of_53)) {
      if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !packed) continue;
      const auto gradients = train_step(lean, world, layout, documents);
      whole.expect(gradients, layout, split_tolerance<T>(),
                   std::string(name_of(strategy)) + ", groups " + std::to_string(groups));
      EXPECT_TRUE(train_step(full, world, layout, documents) == gradients) << layout.description();
    }
  }
}

template <Scalar T>
void compare_with_one_rank(std::int64_t groups, std::int64_t rows) {
  for (const Strategy strategy : shared_strategies) compare_with_one_rank<T>(strategy, groups, rows);
}

TEST(MixerBackward, SplitChangesNothingFloat) {
  for (const std::int64_t groups : {1, 2, 4, 8}) compare_with_one_rank<float>(groups, groups == 2 ? 3 : 1);
}
TEST(MixerBackward, SplitChangesNothingDouble) {
  for (const std::int64_t groups : {1, 2, 4, 8}) compare_with_one_rank<double>(groups, groups == 4 ? 3 : 1);
}
TEST(MixerBackward, SplitChangesNothingBfloat16) { compare_with_one_rank<bfloat16>(2, 1); }
TEST(MixerBackward, SplitChangesNothingFloat16) { compare_with_one_rank<float16>(2, 1); }

// Central differences of the loss sum(out * dout), along single entries of hidden states and parameters.
TEST(MixerBackward, FiniteDifferences) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaConfig config{.d_model = 6, .head_dim = 3, .groups = 2, .d_state = 4, .chunk_size = 4};
  config.bias = true;
  MambaMixer<double> mixer(exec, config, on(world));
  mixer.initialize(5);
  const auto documents = DocumentMap::from_cu_seqlens({0, 4, 11}, 11);
  const auto layout = SequenceLayout::zigzag(world, 11);
  TrainingStep<double> step(mixer, layout, 1);
  const MixerGradients gradients = step.run(mixer, world, layout, documents);

  const auto loss = [&] {
    mixer.forward(exec, world, step.hidden, layout, documents, step.out);
    const auto out = values_of(step.out);
    const auto dout = values_of(step.dout);
    const Array<double*> sum("krait::test::loss", 1);
    double here = 0;
    for (std::size_t i = 0; i < out.size(); ++i) here += out[i] * dout[i];
    assign(sum, {here});
    return sum_over_ranks(world, sum)[0];
  };
  const auto difference = [&loss](const auto& view, std::size_t i) {
    constexpr double h = 1e-5;
    const std::vector<double> values = values_of(view);
    double sides[2];
    for (const int side : {0, 1}) {
      std::vector<double> moved = values;
      if (!moved.empty()) moved[i] += side == 0 ? -h : h;
      assign(view, moved);
      sides[side] = loss();
    }
    assign(view, values);
    return (sides[1] - sides[0]) / (2 * h);
  };

  // Rank r moves only its own tokens; the others take part in the sums.
  for (int rank = 0; rank < world.size(); ++rank) {
    const bool mine = rank == world.rank();
    const Array<double*> nothing("krait::test::nothing", 0);
    for (std::size_t k = 0; k < 3; ++k) {
      const std::size_t size = step.hidden.size();
      const std::size_t i = size == 0 ? 0 : (7 + 11 * k) % size;
      if (mine && size > 0) {
        EXPECT_NEAR(difference(step.hidden, i), gradients.dhidden[i], 1e-7) << "hidden " << i;
      } else {
        (void)difference(nothing, 0);
      }
    }
  }
  const auto& parameters = mixer.parameters();
  const auto check = [&](const std::string& name, const auto& view) {
    for (const auto& [of, values] : gradients.parameters) {
      if (of != name) continue;
      for (std::size_t k = 0; k < 4; ++k) {
        const std::size_t i = (3 + 7 * k) % values.size();
        EXPECT_NEAR(difference(view, i), values[i], 1e-7 * std::max(1.0, std::abs(values[i]))) << name << ' ' << i;
      }
      return;
    }
    ADD_FAILURE() << "no gradient of " << name;
  };
  check("in_proj_weight", parameters.in_proj_weight);
  check("in_proj_bias", parameters.in_proj_bias);
  check("conv_weight", parameters.conv_weight);
  check("conv_bias", parameters.conv_bias);
  check("dt_bias", parameters.dt_bias);
  check("A_log", parameters.A_log);
  check("D", parameters.D);
  check("norm_weight", parameters.norm_weight);
  check("out_proj_weight", parameters.out_proj_weight);
  check("out_proj_bias", parameters.out_proj_bias);
}

// Change hidden states and gradients of one document: no bit of another one's gradient moves.
TEST(MixerBackward, DocumentsDoNotLeak) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  make_slow(mixer);
  const auto documents = documents_of_53(1, true);
  for (const auto& layout : all_layouts(world.place(), 53, cu_of_53)) {
    std::vector<std::vector<double>> results;
    for (const float change : {0.0F, 5.0F}) {
      TrainingStep<float> step(mixer, layout, 1);
      const auto changed = [&](std::uint64_t seed) {
        const auto plain = normal_values(seed, 53, step.width);
        return make_shard<float>(layout, 1, step.width, [&](std::int64_t b, std::int64_t t, std::int64_t c) {
          return plain(b, t, c) + (t == 2 || t == 24 ? change : 0.0F);
        });
      };
      step.hidden = changed(21);
      step.dout = changed(22);
      results.push_back(step.run(mixer, world, layout, documents).dhidden);
    }
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      const std::int64_t token = layout.global_of_local(static_cast<std::int64_t>(i) / 24);
      if (2 <= token && token < 25) {
        EXPECT_NE(results[0][i], results[1][i]) << token;
      } else {
        EXPECT_EQ(results[0][i], results[1][i]) << layout.description() << ", token " << token;
      }
    }
  }
}

TEST(MixerBackward, TheTrainingForwardGivesTheSameNumbers) {
  const auto world = Communicator::world(Exec());
  MambaMixer<float> mixer(Exec(), small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 53);
  const auto documents = documents_of_53(2, true);
  TrainingStep<float> step(mixer, layout, 2);
  mixer.forward(Exec(), step.hidden, layout, documents, step.out, step.kept);
  EXPECT_LE(relative_rms(values_of(step.out), run_mixer(mixer, world, layout, documents)), split_tolerance<float>());
}

TEST(MixerBackward, SameBitsEveryTimeAlsoInPlace) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 53);
  const auto documents = documents_of_53(2, true);
  TrainingStep<float> step(mixer, layout, 2);
  const auto first = step.run(mixer, world, layout, documents);
  const auto again = [&](const Array<float***>& dhidden) {
    zero(exec, step.gradients);
    poison(step.dhidden);
    mixer.backward(exec, step.hidden, layout, documents, step.kept, step.dout, dhidden, step.gradients);
    reduce_gradients(exec, world, step.gradients);
    return MixerGradients{values_of(dhidden), named(step.gradients)};
  };
  for (int repeat = 0; repeat < 20; ++repeat) EXPECT_TRUE(again(step.dhidden) == first);  // of one forward
  for (int repeat = 0; repeat < 20; ++repeat)
    EXPECT_TRUE(TrainingStep<float>(mixer, layout, 2).run(mixer, world, layout, documents) == first);
  EXPECT_TRUE(again(step.dout) == first);
}

TEST(MixerBackward, GradientsAreAddedToWhatIsThere) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<double> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 53);
  const auto documents = DocumentMap::whole_rows(1, 53);
  TrainingStep<double> step(mixer, layout, 1);
  auto want = step.run(mixer, world, layout, documents).parameters;
  for (auto& [name, values] : want)
    for (double& value : values) value = 3 * (2 * value + 1);
  zero(exec, step.gradients);
  if (world.rank() == 0) assign(step.gradients.flat(), std::vector<double>(step.gradients.flat().size(), 1.0));
  for (int call = 0; call < 2; ++call)
    mixer.backward(exec, step.hidden, layout, step.kept, step.dout, step.dhidden, step.gradients);
  reduce_gradients(exec, world, step.gradients, 3.0);
  EXPECT_TRUE(gradients_close(named(step.gradients), want, 1e-12));
}

// Activations of several calls are alive at once, of other lengths, batches and groups.
TEST(MixerBackward, CallsMayBeNested) {
  const auto world = Communicator::world(Exec());
  const auto halves = world.split(world.rank() % 2, world.rank());
  MambaMixer<double> first(Exec(), small_mixer(2), on(world));
  MambaMixer<double> second(Exec(), small_mixer(4), on(world), first.workspace());
  first.initialize(7);
  second.initialize(8);
  struct Pending {
    MambaMixer<double>* mixer;
    Communicator group;
    SequenceLayout layout;
    DocumentMap documents;
    TrainingStep<double> step;
  };
  const Exec exec;
  std::vector<Pending> pending;
  for (int call = 0; call < 6; ++call) {
    const auto& group = call % 3 == 2 ? halves : world;
    const std::int64_t length = 10 + (call * 37) % 50;
    const std::int64_t rows = 1 + call % 3;
    const auto documents = DocumentMap::from_cu_seqlens_per_row(
        std::vector<std::vector<std::int64_t>>(static_cast<std::size_t>(rows), {0, 3, length}), length);
    const auto layout = all_layouts(group.place(), length, {0, 3, length})[static_cast<std::size_t>(call % 4)];
    auto* const mixer = call % 2 == 0 ? &first : &second;
    pending.push_back({mixer, group, layout, documents, TrainingStep<double>(*mixer, layout, rows)});
    auto& step = pending.back().step;
    mixer->forward(exec, group, step.hidden, layout, documents, step.out, step.kept);
  }
  while (!pending.empty()) {
    auto& [mixer, group, layout, documents, step] = pending.back();
    mixer->backward(exec, group, step.hidden, layout, documents, step.kept, step.dout, step.dhidden, step.gradients);
    reduce_gradients(exec, group, step.gradients);
    reference_gradients(*mixer, documents).expect({values_of(step.dhidden), named(step.gradients)}, layout, 1e-12);
    pending.pop_back();
  }
}

TEST(MixerBackward, PadsHaveNoPartInAnything) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<double> mixer(exec, small_mixer(2), on(world));
  mixer.initialize(7);
  const std::int64_t length = 2 * world.size() + 1;
  const auto layout = SequenceLayout::zigzag(world, length, Policy::tail_pad);
  TrainingStep<double> step(mixer, layout, 1);
  const auto unpadded = [&](std::uint64_t seed) {
    const auto plain = normal_values(seed, length, step.width);
    return make_shard<double>(layout, 1, step.width, [&](std::int64_t b, std::int64_t t, std::int64_t c) {
      const std::int64_t source = layout.source_token(t);
      return source < 0 ? 1e3F : plain(b, source, c);
    });
  };
  step.hidden = unpadded(21);
  step.dout = unpadded(22);
  mixer.forward(exec, step.hidden, layout, step.out, step.kept);
  mixer.backward(exec, step.hidden, layout, step.kept, step.dout, step.dhidden, step.gradients);
  reduce_gradients(exec, world, step.gradients);
  const auto whole = reference_gradients(mixer, DocumentMap::whole_rows(1, length));
  EXPECT_TRUE(gradients_close(named(step.gradients), whole.parameters, 1e-12));
  std::vector<double> want;
  for (std::int64_t i = 0; i < layout.local_length(); ++i)
    for (std::size_t c = 0; c < 24; ++c) {
      const std::int64_t source = layout.source_token(layout.global_of_local(i));
      want.push_back(source < 0 ? 0 : whole.dhidden(0, static_cast<std::size_t>(source), c));
    }
  EXPECT_LE(relative_rms(values_of(step.dhidden), want), 1e-12);
}

// A refused backward sends nothing, on no rank, and the right one after it works.
class BackwardRefusals : public testing::Test {
 protected:
  using Step = TrainingStep<float>;

  BackwardRefusals() : mixer_(Exec(), small_mixer(2), on(world_)), step_(mixer_, layout_, 1) {
    mixer_.initialize(7);
    mixer_.forward(exec_, step_.hidden, layout_, documents_, step_.out, step_.kept);
  }

  template <class E>
  void refuses(const std::string& text, const SequenceLayout& layout, const DocumentMap& documents, const Step& step,
               const MambaActivations<float>& kept, const MambaGradients<float>& gradients) {
    auto context = world_;
    context.reset_counters();
    EXPECT_THAT(
        [&] { mixer_.backward(exec_, step.hidden, layout, documents, kept, step.dout, step.dhidden, gradients); },
        ThrowsMessage<E>(HasSubstr(text)));
    EXPECT_EQ(world_.counters()[CommOperation::all_to_all_v].calls, 0);
    mixer_.backward(exec_, step_.hidden, layout_, documents_, step_.kept, step_.dout, step_.dhidden, step_.gradients);
    exec_.fence("krait::test: backward is done");
  }

  Exec exec_;
  Communicator world_ = Communicator::world(Exec());
  MambaMixer<float> mixer_;
  SequenceLayout layout_ = SequenceLayout::zigzag(world_, 40);
  DocumentMap documents_ = DocumentMap::whole_rows(1, 40);
  Step step_;
};

TEST_F(BackwardRefusals, WhatIsNotTheForwards) {
  const auto striped = all_layouts(world_.place(), 40, {0, 40})[3];
  refuses<LayoutError>("the forward had the zigzag(even) layout of 40 tokens", striped, documents_,
                       Step(mixer_, striped, 1), step_.kept, step_.gradients);
  const auto longer = SequenceLayout::zigzag(world_, 41);
  refuses<LayoutError>("this call has the zigzag(even) layout of 41 tokens", longer, DocumentMap::whole_rows(1, 41),
                       Step(mixer_, longer, 1), step_.kept, step_.gradients);
  refuses<LayoutError>("the forward had other documents (1, now 2)", layout_,
                       DocumentMap::from_cu_seqlens({0, 20, 40}, 40), step_, step_.kept, step_.gradients);
  refuses<ShapeError>("the forward had a batch of 1 rows, this call has 2", layout_, DocumentMap::whole_rows(2, 40),
                      Step(mixer_, layout_, 2), step_.kept, step_.gradients);
  refuses<ConfigError>("kept is empty", layout_, documents_, step_, MambaActivations<float>(), step_.gradients);
  MambaMixer<float> other(exec_, small_mixer(4), on(world_));
  Step of_other(other, layout_, 1);
  other.initialize(1);
  other.forward(exec_, of_other.hidden, layout_, documents_, of_other.out, of_other.kept);
  refuses<ConfigError>("another mixer", layout_, documents_, step_, of_other.kept, step_.gradients);
  refuses<ShapeError>("the gradient of in_proj_weight is (", layout_, documents_, step_, step_.kept,
                      of_other.gradients);
}

// A layer's activations in another layer of the same configuration would fit, and give wrong numbers.
TEST_F(BackwardRefusals, AnotherLayersActivations) {
  MambaMixer<float> other(exec_, mixer_.config(), on(world_));
  Step of_other(other, layout_, 1);
  other.forward(exec_, of_other.hidden, layout_, documents_, of_other.out, of_other.kept);
  refuses<ConfigError>("another mixer", layout_, documents_, step_, of_other.kept, step_.gradients);
}

TEST_F(BackwardRefusals, ActivationsThatMovedAway) {
  Step moved(mixer_, layout_, 1);
  mixer_.forward(exec_, moved.hidden, layout_, documents_, moved.out, moved.kept);
  auto kept = std::move(moved.kept);
  refuses<ConfigError>("kept is empty", layout_, documents_, step_, moved.kept,
                       step_.gradients);  // NOLINT(*-use-after-move)
  EXPECT_EQ(moved.kept.bytes(), 0U);
  mixer_.backward(exec_, moved.hidden, layout_, documents_, kept, moved.dout, moved.dhidden, moved.gradients);
  const auto first = values_of(moved.dhidden);
  mixer_.forward(exec_, step_.dout, layout_, documents_, moved.out, moved.kept);  // in memory of its own
  mixer_.backward(exec_, moved.hidden, layout_, documents_, kept, moved.dout, moved.dhidden, moved.gradients);
  EXPECT_EQ(values_of(moved.dhidden), first);
}

// Its memory may have grown already when another rank refused the call.
TEST_F(BackwardRefusals, ActivationsOfAForwardThatThrew) {
  const auto longer = SequenceLayout::zigzag(world_, 400);
  Step wrong(mixer_, longer, 1);
  if (world_.rank() == world_.size() - 1) wrong.out = Array<float***>("krait::test::narrow", 1, 1, 23);
  MambaActivations<float> kept;
  mixer_.forward(exec_, step_.hidden, layout_, documents_, step_.out, kept);
  EXPECT_THROW(mixer_.forward(exec_, wrong.hidden, longer, wrong.out, kept), ShapeError);
  EXPECT_FALSE(kept.filled());
}

TEST_F(BackwardRefusals, TensorsThatDoNotFit) {
  const Array<float***> narrow("krait::test::narrow", 1, static_cast<std::size_t>(layout_.local_length()), 23);
  Step wrong(mixer_, layout_, 1);
  wrong.dout = narrow;
  refuses<ShapeError>("dout is (1, ", layout_, documents_, wrong, step_.kept, step_.gradients);
  wrong = Step(mixer_, layout_, 1);
  wrong.dhidden = narrow;
  refuses<ShapeError>("dhidden is (1, ", layout_, documents_, wrong, step_.kept, step_.gradients);
  wrong = Step(mixer_, layout_, 1);
  wrong.hidden = narrow;
  refuses<ShapeError>("hidden is (1, ", layout_, documents_, wrong, step_.kept, step_.gradients);
  wrong = Step(mixer_, layout_, 1);
  wrong.dhidden = wrong.hidden;
  refuses<ShapeError>("dhidden is hidden", layout_, documents_, wrong, step_.kept, step_.gradients);
}

// The first backward is agreed on, although the forward before it already was.
TEST(MixerBackward, OneRanksMistakeIsEverybodysError) {
  const auto world = Communicator::world(Exec());
  MambaMixer<float> mixer(Exec(), small_mixer(2), on(world));
  mixer.initialize(7);
  const auto layout = SequenceLayout::zigzag(world, 40);
  TrainingStep<float> step(mixer, layout, 1);
  mixer.forward(Exec(), step.hidden, layout, step.out, step.kept);
  const bool odd = world.rank() == world.size() - 1;
  const Array<float***> dout = odd ? Array<float***>("krait::test::narrow", 1, 1, 23) : step.dout;
  EXPECT_THAT([&] { mixer.backward(Exec(), step.hidden, layout, step.kept, dout, step.dhidden, step.gradients); },
              ThrowsMessage<ShapeError>(HasSubstr("dout is (1, 1, 23)")));
  mixer.backward(Exec(), step.hidden, layout, step.kept, step.dout, step.dhidden, step.gradients);
}

}  // namespace
