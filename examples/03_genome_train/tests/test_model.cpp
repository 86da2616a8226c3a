// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The model's loss and gradients, in double precision: by finite differences, and on several ranks.
#include <gtest/gtest.h>

#include <krait/comm/communicator.hpp>
#include <krait/core/random.hpp>
#include <string>
#include <support/finite_differences.hpp>
#include <support/ranks.hpp>
#include <support/view_values.hpp>
#include <vector>

#include "../model.hpp"

namespace {

using genome::Base;
using genome::Exec;
using genome::Sequence;
using genome::train::Activations;
using genome::train::Model;
using genome::train::ModelConfig;
using genome::train::Parameter;
using krait::test::values_of;

/// A model on a short sequence, split over some ranks.
class Problem {
 public:
  /// \param changed  the first base that is another one than usual; none by default
  Problem(const krait::Communicator& ranks, const ModelConfig& config, std::int64_t length, std::int64_t changed = -1,
          krait::Strategy strategy = krait::Strategy::automatic)
      : layout_(krait::SequenceLayout::zigzag(ranks, length)),
        tokens_(genome::train::make_tokens(Exec(), layout_, sequence(length, changed))),
        model_(Exec(), config, ranks, strategy),
        activations_(Exec(), config, layout_) {
    model_.initialize(7);
  }

  double loss() { return model_.loss_and_gradients(layout_, tokens_, activations_); }
  [[nodiscard]] const std::vector<Parameter<double>>& parameters() const { return model_.parameters(); }
  /// Of this rank's tokens, behind loss().
  [[nodiscard]] std::vector<double> losses() const { return values_of(activations_.losses); }
  [[nodiscard]] const krait::SequenceLayout& layout() const { return layout_; }

 private:
  static Sequence sequence(std::int64_t length, std::int64_t changed) {
    Sequence result;
    result.length = length;
    for (std::int64_t i = 0; i < length; ++i) {
      const double draw = krait::uniform(3, 0, static_cast<std::uint64_t>(i));
      result.bases.push_back(i % 7 == 3 ? Base{15} : static_cast<Base>(1U << static_cast<unsigned>(4 * draw)));
    }
    if (changed >= 0) {
      Base& base = result.bases[static_cast<std::size_t>(changed)];
      base = base == 1 ? Base{2} : Base{1};
    }
    return result;
  }

  krait::SequenceLayout layout_;
  genome::train::Tokens tokens_;
  Model<double> model_;
  Activations<double> activations_;
};

void append(std::vector<double>& all, const std::vector<double>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

/// The whole gradient by finite differences, on this rank alone. Whole, because the differences of one function have
/// one error, whatever it is derived by.
void expect_exact_gradients(const ModelConfig& config, std::int64_t length) {
  Problem problem(krait::Communicator::self(), config, length);
  for (const auto& parameter : problem.parameters()) {
    // With the small steps of a fresh layer hardly anything depends on its decay rates.
    if (parameter.name.ends_with("dt_bias")) Kokkos::deep_copy(parameter.value, 0.5);
  }
  problem.loss();
  std::vector<double> gradients;
  for (const auto& parameter : problem.parameters()) append(gradients, values_of(parameter.gradient));
  std::vector<double> slopes;
  for (const auto& parameter : problem.parameters()) {
    append(slopes, krait::test::finite_differences(parameter.value, [&] { return problem.loss(); }));
  }
  EXPECT_TRUE(krait::test::all_close(gradients, slopes, krait::test::by_differences()));
}

TEST(Model, GradientsWithoutALayerAreExact) {
  if (krait::test::world_place().size == 1) expect_exact_gradients({.layers = 0, .d_model = 8, .d_state = 4}, 23);
}

TEST(Model, GradientsThroughTheLayersAreExact) {
  if (krait::test::world_place().size == 1) expect_exact_gradients({.layers = 2, .d_model = 8, .d_state = 3}, 23);
}

TEST(Model, ListsEveryParameterOnce) {
  const ModelConfig config{.layers = 2, .d_model = 16, .d_state = 8};
  const Model<double> model(Exec(), config, krait::Communicator::self());
  const auto& parameters = model.parameters();
  EXPECT_EQ(parameters.size(), 1 + 2 * 9 + 2U);
  const Model<double> bare(Exec(), {.layers = 0, .d_model = 16, .d_state = 8}, krait::Communicator::self());
  const krait::MambaMixer<double, Exec> mixer(Exec(), config.mixer());
  EXPECT_EQ(model.parameter_count(), bare.parameter_count() + 2 * (mixer.parameters().count() + 16));
  for (const auto& parameter : parameters) {
    const bool matrix = parameter.name == "embedding" || parameter.name == "head.weight" ||
                        parameter.name.find("proj.weight") != std::string::npos ||
                        parameter.name.find("conv1d.weight") != std::string::npos;
    EXPECT_EQ(parameter.decays, matrix) << parameter.name;
    EXPECT_EQ(parameter.value.size(), parameter.gradient.size());
  }
}

class ModelStrategies : public testing::TestWithParam<krait::Strategy> {};

TEST_P(ModelStrategies, LossAndGradientsAreThoseOfOneRank) {
  const auto world = krait::Communicator::world(Exec());
  for (const std::int64_t length : {3, 64, 301}) {
    const ModelConfig config{.layers = 2, .d_model = 16, .d_state = 8};
    Problem shared(world, config, length, /*changed=*/-1, GetParam());
    Problem alone(krait::Communicator::self(), config, length);
    const double wanted = alone.loss();
    EXPECT_NEAR(shared.loss(), wanted, 1e-12 * wanted);
    for (std::size_t i = 0; i < alone.parameters().size(); ++i) {
      EXPECT_TRUE(krait::test::all_close(values_of(shared.parameters()[i].gradient),
                                         values_of(alone.parameters()[i].gradient), {.nmse = 1e-24, .relative = 1e-9}))
          << alone.parameters()[i].name << ", length " << length;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelStrategies,
                         testing::Values(krait::Strategy::hidden_parallel, krait::Strategy::state_passing),
                         [](const auto& strategy) { return std::string(krait::name_of(strategy.param)); });

TEST(Model, WhatStatePassingSendsDoesNotGrowWithTheLength) {
  const auto world = krait::Communicator::world(Exec());
  const auto sent = [&](std::int64_t length) {
    const std::int64_t before = world.counters().total().bytes_sent;
    Problem problem(world, {.layers = 1, .d_model = 16, .d_state = 8}, length, /*changed=*/-1,
                    krait::Strategy::state_passing);
    problem.loss();
    return world.counters().total().bytes_sent - before;
  };
  // Less where the planner takes another exchange of states for the longer row.
  EXPECT_LE(sent(640), sent(64));
}

TEST(Model, NoTokenSeesWhatItIsToPredict) {
  constexpr std::int64_t length = 201;
  constexpr std::int64_t changed = 100;
  const ModelConfig config{.layers = 2, .d_model = 16, .d_state = 8};
  const auto world = krait::Communicator::world(Exec());
  Problem one(world, config, length);
  Problem other(world, config, length, changed);
  one.loss();
  other.loss();
  bool equal_before = true;
  bool different_from_there = true;
  for (std::int64_t i = 0; i < one.layout().local_length(); ++i) {
    const std::int64_t token = one.layout().global_of_local(i);
    const bool equal = one.losses()[static_cast<std::size_t>(i)] == other.losses()[static_cast<std::size_t>(i)];
    if (token < changed - 1) equal_before = equal_before && equal;
    if (token == changed - 1 || token == changed) different_from_there = different_from_there && !equal;
  }
  EXPECT_TRUE_ON_ALL_RANKS(equal_before);
  EXPECT_TRUE_ON_ALL_RANKS(different_from_there);
}

TEST(Model, TheSameCallGivesTheSameBits) {
  const auto world = krait::Communicator::world(Exec());
  Problem problem(world, {.layers = 1, .d_model = 16, .d_state = 8}, 100);
  const double once = problem.loss();
  std::vector<std::vector<double>> gradients;
  for (const auto& parameter : problem.parameters()) gradients.push_back(values_of(parameter.gradient));
  EXPECT_EQ(problem.loss(), once);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_EQ(values_of(problem.parameters()[i].gradient), gradients[i]) << problem.parameters()[i].name;
  }
}

}  // namespace
