// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tokens, embedding and cross-entropy: the pieces of the model that are not Krait's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <krait/core/error.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <support/finite_differences.hpp>
#include <support/random_view.hpp>
#include <support/view_values.hpp>
#include <vector>

#include "../cross_entropy.hpp"
#include "../embedding.hpp"
#include "../symbols.hpp"
#include "../tokens.hpp"

namespace {

using genome::Exec;
using genome::Sequence;
using genome::train::Array;
using genome::train::Hidden;
using genome::train::make_hidden;
using genome::train::make_tokens;
using genome::train::no_target;
using genome::train::Slice;
using genome::train::Symbols;
using genome::train::symbols;
using genome::train::Tokens;
using krait::test::values_of;
using testing::HasSubstr;
using testing::ThrowsMessage;

Sequence repeated(std::int64_t length) {
  Sequence sequence;
  sequence.bases = {1, 2, 4, 8, 15, 2, 2};
  sequence.length = length;
  return sequence;
}

std::vector<int> on_host(const Symbols& view) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), view);
  return {host.data(), host.data() + host.size()};
}

TEST(Tokens, TargetsAreTheNextBasesOfTheSequenceWhoeverHoldsThem) {
  const Sequence sequence = repeated(45);
  for (const int ranks : {1, 2, 3, 4}) {
    int without_target = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto layout = krait::SequenceLayout::zigzag(krait::Place{rank, ranks}, sequence.length);
      const Tokens tokens = make_tokens(Exec(), layout, sequence);
      EXPECT_EQ(tokens.predictions, 44);
      const std::vector<int> inputs = on_host(tokens.inputs);
      const std::vector<int> targets = on_host(tokens.targets);
      ASSERT_EQ(static_cast<std::int64_t>(inputs.size()), layout.local_length());
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const std::int64_t token = layout.global_of_local(static_cast<std::int64_t>(i));
        EXPECT_EQ(inputs[i], genome::train::symbol_of(sequence.at(token)));
        if (token == 44) {
          EXPECT_EQ(targets[i], no_target);
          ++without_target;
        } else {
          EXPECT_EQ(targets[i], genome::train::symbol_of(sequence.at(token + 1)));
        }
      }
    }
    EXPECT_EQ(without_target, 1) << ranks << " ranks";
  }
}

TEST(Tokens, OneBaseAloneIsRefused) {
  EXPECT_THAT([] { make_tokens(Exec(), krait::SequenceLayout::zigzag(krait::Place{}, 1), repeated(1)); },
              ThrowsMessage<krait::ConfigError>(HasSubstr("at least 2 bases")));
}

/// Views of `count` normal numbers.
Hidden<double> random_hidden(std::int64_t tokens, std::int64_t features, std::uint64_t seed) {
  const auto view = make_hidden<double>(Exec(), "random", tokens, features);
  krait::test::assign(view, krait::test::normal_numbers(seed, tokens * features));
  return view;
}

TEST(Embedding, GradientIsTheSumOverTheTokensOfASymbol) {
  constexpr std::int64_t tokens = 1300;  // three blocks, the last one shorter
  constexpr std::int64_t features = 12;
  const Exec exec;
  const Tokens data = make_tokens(exec, krait::SequenceLayout::zigzag(krait::Place{}, tokens), repeated(tokens));
  const Array<double> table("table", symbols * features);
  krait::test::assign(table, krait::test::normal_numbers(1, symbols * features));
  const auto stream = make_hidden<double>(exec, "stream", tokens, features);
  const Hidden<double> dstream = random_hidden(tokens, features, 2);
  const std::vector<double> weights = values_of(dstream);

  const Array<double> dtable("dtable", symbols * features);
  Kokkos::deep_copy(dtable, 3.0);  // added to
  const Array<double> workspace("workspace",
                                genome::train::embed_backward_bytes<double>(tokens, features) / sizeof(double));
  Kokkos::deep_copy(workspace, std::nan(""));
  genome::train::embed_backward<double>(exec, data.inputs, dstream, dtable, workspace.data());

  std::vector<double> slopes = krait::test::finite_differences(table, [&] {
    genome::train::embed<double>(exec, data.inputs, table, stream);
    exec.fence("test");
    return krait::test::weighted_sum(weights, values_of(stream));
  });
  for (double& slope : slopes) slope += 3;
  EXPECT_TRUE(krait::test::all_close(values_of(dtable), slopes, krait::test::by_differences()));
}

TEST(CrossEntropy, OfEqualLogitsIsTheLogarithmOfTheirNumber) {
  const Exec exec;
  const Tokens data = make_tokens(exec, krait::SequenceLayout::zigzag(krait::Place{}, 10), repeated(10));
  const auto logits = make_hidden<float>(exec, "logits", 10, symbols);
  Kokkos::deep_copy(logits, 100.0F);
  const Array<float> losses("losses", 10);
  genome::train::cross_entropy<float>(exec, data.targets, 1, logits, losses);
  EXPECT_NEAR(genome::train::sum_of<float>(exec, losses), 9 * std::log(5.0), 1e-5);
}

TEST(CrossEntropy, SurvivesLargeLogits) {
  const Exec exec;
  const Tokens data = make_tokens(exec, krait::SequenceLayout::zigzag(krait::Place{}, 2), repeated(2));  // A, C
  const auto logits = make_hidden<float>(exec, "logits", 2, symbols);
  Kokkos::deep_copy(logits, -3e4F);
  Kokkos::deep_copy(Kokkos::subview(logits, 0, 0, 0), 3e4F);  // A again, where C follows
  const Array<float> losses("losses", 2);
  genome::train::cross_entropy<float>(exec, data.targets, 1, logits, losses);
  EXPECT_FLOAT_EQ(static_cast<float>(genome::train::sum_of<float>(exec, losses)), 6e4F);
  EXPECT_EQ(values_of(logits).at(0), 1);
  EXPECT_EQ(values_of(logits).at(1), -1);
}

TEST(CrossEntropy, GradientReplacesTheLogits) {
  constexpr std::int64_t tokens = 9;
  const Exec exec;
  const Tokens data = make_tokens(exec, krait::SequenceLayout::zigzag(krait::Place{}, tokens), repeated(tokens));
  const Hidden<double> logits = random_hidden(tokens, symbols, 3);
  const Hidden<double> work = random_hidden(tokens, symbols, 4);
  const Array<double> losses("losses", tokens);
  constexpr double scale = 0.25;
  const auto loss = [&] {
    Kokkos::deep_copy(losses, std::nan(""));
    Kokkos::deep_copy(work, logits);
    genome::train::cross_entropy<double>(exec, data.targets, scale, work, losses);
    return scale * genome::train::sum_of<double>(exec, losses);
  };
  const std::vector<double> slopes = krait::test::finite_differences(logits, loss);
  loss();
  EXPECT_TRUE(krait::test::all_close(values_of(work), slopes, krait::test::by_differences()));
}

}  // namespace
