// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <krait/comm/communicator.hpp>
#include <krait/core/error.hpp>
#include <krait/core/random.hpp>
#include <string>
#include <vector>

#include "../context_entropy.hpp"
#include "../trainer.hpp"

namespace {

using genome::Exec;
using genome::Sequence;
using genome::train::Checkpoint;
using genome::train::Options;
using genome::train::Trainer;
using testing::HasSubstr;
using testing::ThrowsMessage;

Options small(std::int64_t steps) {
  Options options;
  options.model = {.layers = 2, .d_model = 16, .d_state = 8};
  options.steps = steps;
  options.learning_rate = 0.01;
  return options;
}

/// Bases with a memory: half of them are told by the two before them.
Sequence grammar(std::int64_t length) {
  Sequence sequence;
  sequence.length = length;
  unsigned before = 0;
  unsigned last = 1;
  for (std::int64_t i = 0; i < length; ++i) {
    const double draw = krait::uniform(5, 0, static_cast<std::uint64_t>(i));
    const unsigned next = draw < 0.5 ? (before + 2 * last + 1) % 4 : static_cast<unsigned>(8 * (draw - 0.5));
    sequence.bases.push_back(static_cast<genome::Base>(1U << next));
    before = last;
    last = next;
  }
  return sequence;
}

std::vector<double> losses(Trainer& trainer, int steps) {
  std::vector<double> result;
  for (int i = 0; i < steps; ++i) result.push_back(trainer.step().bits_per_base);
  return result;
}

krait::Communicator world() { return krait::Communicator::world(Exec()); }

class TrainerStrategies : public testing::TestWithParam<krait::Strategy> {};

TEST_P(TrainerStrategies, TheCurveOnSeveralRanksIsThatOfOne) {
  Options options = small(30);
  options.strategy = GetParam();
  const Sequence sequence = grammar(700);
  Trainer shared(Exec(), world(), options, sequence);
  options.strategy = krait::Strategy::automatic;
  Trainer alone(Exec(), krait::Communicator::self(), options, sequence);
  const std::vector<double> got = losses(shared, 30);
  const std::vector<double> wanted = losses(alone, 30);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "step " << i + 1;
  EXPECT_TRUE(shared.parameters_agree());
}

INSTANTIATE_TEST_SUITE_P(All, TrainerStrategies,
                         testing::Values(krait::Strategy::hidden_parallel, krait::Strategy::state_passing),
                         [](const auto& strategy) { return std::string(krait::name_of(strategy.param)); });

TEST(Trainer, ACheckpointGoesOnWithAnotherStrategy) {
  Options options = small(20);
  options.strategy = krait::Strategy::hidden_parallel;
  const Sequence sequence = grammar(500);
  Trainer exchanging(Exec(), world(), options, sequence);
  losses(exchanging, 8);
  options.strategy = krait::Strategy::state_passing;
  Trainer passing(Exec(), world(), options, sequence);
  passing.restore(exchanging.checkpoint());
  const std::vector<double> wanted = losses(exchanging, 12);
  const std::vector<double> got = losses(passing, 12);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "step " << i + 9;
}

TEST(Trainer, ContiguousAndZigzagGiveTheSameCurve) {
  Options options = small(10);
  const Sequence sequence = grammar(301);
  Trainer zigzag(Exec(), world(), options, sequence);
  options.layout = genome::LayoutKind::contiguous;
  Trainer contiguous(Exec(), world(), options, sequence);
  const std::vector<double> got = losses(contiguous, 10);
  const std::vector<double> wanted = losses(zigzag, 10);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "step " << i + 1;
}

TEST(Trainer, LearnsWhatAContextTells) {
  const Sequence sequence = grammar(2000);
  Trainer trainer(Exec(), world(), small(60), sequence);
  const std::vector<double> curve = losses(trainer, 60);
  const std::vector<double> entropies = genome::train::context_entropies(sequence, 2);
  EXPECT_LT(curve.back(), curve.front());
  EXPECT_LT(curve.back(), entropies[1]) << "one base of context does not explain it";
}

TEST(Trainer, ResumedItGivesTheSameBits) {
  const Options options = small(20);
  const Sequence sequence = grammar(500);
  Trainer whole(Exec(), world(), options, sequence);
  losses(whole, 8);
  const auto bytes = encode(whole.checkpoint());
  const std::vector<double> wanted = losses(whole, 12);

  Trainer resumed(Exec(), world(), options, sequence);
  losses(resumed, 3);  // what is there before does not matter
  resumed.restore(genome::train::decode(bytes, "memory"));
  EXPECT_EQ(resumed.steps_done(), 8);
  EXPECT_EQ(losses(resumed, 12), wanted);
  EXPECT_EQ(resumed.checkpoint(), whole.checkpoint());
}

TEST(Trainer, ResumesOnAnotherNumberOfRanks) {
  const Options options = small(20);
  const Sequence sequence = grammar(500);
  Trainer shared(Exec(), world(), options, sequence);
  losses(shared, 8);
  Trainer alone(Exec(), krait::Communicator::self(), options, sequence);
  alone.restore(shared.checkpoint());
  const std::vector<double> wanted = losses(shared, 12);
  const std::vector<double> got = losses(alone, 12);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "step " << i + 9;
}

TEST(Trainer, ACheckpointOfAnotherSizeIsRefused) {
  const Sequence sequence = grammar(100);
  Trainer trainer(Exec(), world(), small(5), sequence);
  Checkpoint checkpoint = trainer.checkpoint();
  checkpoint.second_moment.pop_back();
  EXPECT_THAT([&] { trainer.restore(checkpoint); },
              ThrowsMessage<krait::ConfigError>(HasSubstr("parameters, the model")));
}

TEST(Trainer, ALossThatIsNotFiniteChangesNothing) {
  Trainer trainer(Exec(), world(), small(5), grammar(100));
  Checkpoint broken = trainer.checkpoint();
  broken.parameters.front() = std::nanf("");
  trainer.restore(broken);
  EXPECT_TRUE(std::isnan(trainer.step().bits_per_base));
  EXPECT_EQ(trainer.steps_done(), 0);
  EXPECT_EQ(trainer.checkpoint().first_moment, broken.first_moment);
}

TEST(Trainer, TheSeedDecidesTheParameters) {
  Options options = small(5);
  const Sequence sequence = grammar(100);
  const Trainer one(Exec(), world(), options, sequence);
  const Trainer again(Exec(), world(), options, sequence);
  options.seed = 43;
  const Trainer other(Exec(), world(), options, sequence);
  EXPECT_EQ(one.checkpoint().parameters, again.checkpoint().parameters);
  EXPECT_NE(one.checkpoint().parameters, other.checkpoint().parameters);
}

}  // namespace
