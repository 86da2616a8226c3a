// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <string>
#include <vector>

#include "../options.hpp"

namespace {

using genome::train::Options;
using testing::HasSubstr;
using testing::ThrowsMessage;

Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "krait_genome_train");
  return genome::train::parse_options(static_cast<int>(arguments.size()), arguments.data());
}

auto refuses(const std::string& what) { return ThrowsMessage<krait::ConfigError>(HasSubstr(what)); }

TEST(TrainOptions, DefaultsAreTheWholePhage) {
  const Options options = parse({});
  EXPECT_THAT(options.path(), HasSubstr("lambda_virus.fa.gz"));
  EXPECT_EQ(options.length, 0);
  EXPECT_EQ(options.layout, genome::LayoutKind::zigzag);
  EXPECT_EQ(options.strategy, krait::Strategy::automatic);
  EXPECT_EQ(options.csv, "loss.csv");
  EXPECT_TRUE(options.save.empty());
  EXPECT_EQ(options.last_step(), options.steps);
  EXPECT_EQ(options.schedule().warm_up, options.steps / 10);
}

TEST(TrainOptions, TakesEveryValue) {
  const Options options =
      parse({"--layers=3", "--d-model=32", "--d-state=16", "--steps=40", "--stop-after=20", "--lr=1e-3", "--warm-up=7",
             "--weight-decay=0", "--clip=0.5", "--csv=a.csv", "--save=a.bin", "--save-every=5", "--resume=b.bin",
             "--progress=lines", "--quiet", "--length=100", "--seed=9", "--strategy=state_passing"});
  EXPECT_EQ(options.model, (genome::train::ModelConfig{.layers = 3, .d_model = 32, .d_state = 16}));
  EXPECT_EQ(options.last_step(), 20);
  EXPECT_EQ(options.schedule().warm_up, 7);
  EXPECT_EQ(options.schedule().steps, 40);
  EXPECT_EQ(options.schedule().peak, 1e-3);
  EXPECT_EQ(options.weight_decay, 0);
  EXPECT_EQ(options.clip, 0.5);
  EXPECT_EQ(options.csv, "a.csv");
  EXPECT_EQ(options.save, "a.bin");
  EXPECT_EQ(options.save_every, 5);
  EXPECT_EQ(options.resume, "b.bin");
  EXPECT_TRUE(options.quiet);
  EXPECT_EQ(options.strategy, krait::Strategy::state_passing);
}

TEST(TrainOptions, RefusesWhatCannotWork) {
  EXPECT_THAT([] { parse({"--steps", "1"}); }, refuses("--steps takes a whole number of at least 2, got '1'"));
  EXPECT_THAT([] { parse({"--lr", "0"}); }, refuses("--lr takes a number above 0 and at most 1, got '0'"));
  EXPECT_THAT([] { parse({"--d-model", "30"}); }, refuses("--d-model must be a multiple of 4, got 30"));
  EXPECT_THAT([] { parse({"--d-model", "2"}); }, refuses("--d-model must be a multiple of 4, got 2"));
  EXPECT_THAT([] { parse({"--save-every", "3"}); }, refuses("--save-every needs --save FILE"));
  EXPECT_THAT([] { parse({"--steps=5", "--stop-after=6"}); },
              refuses("--stop-after takes at most --steps, which is 5"));
  EXPECT_THAT([] { parse({"--strategy", "local"}); },
              refuses("--strategy takes one of automatic, hidden_parallel, state_passing, got 'local'"));
  EXPECT_THAT([] { parse({"--dtype", "bf16"}); }, refuses("unknown option '--dtype'"));
}

TEST(TrainOptions, HelpNamesEveryOption) {
  const std::string help = genome::train::help_text();
  for (const char* option : {"--layers", "--d-model", "--d-state", "--steps", "--stop-after", "--lr", "--warm-up",
                             "--weight-decay", "--clip", "--csv", "--save ", "--save-every", "--resume", "--progress",
                             "--quiet", "--help", "--fasta", "--strategy", "--layout"}) {
    EXPECT_THAT(help, HasSubstr(option));
  }
}

}  // namespace
