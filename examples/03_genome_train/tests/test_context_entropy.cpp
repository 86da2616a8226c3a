// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "../context_entropy.hpp"
#include "../symbols.hpp"

namespace {

using genome::Sequence;
using genome::train::context_entropies;

Sequence sequence_of(const std::string& letters) {
  Sequence sequence;
  for (const char letter : letters) sequence.bases.push_back(genome::base_from_letter(letter));
  sequence.length = static_cast<std::int64_t>(letters.size());
  return sequence;
}

double two_way(double p) { return -p * std::log2(p) - (1 - p) * std::log2(1 - p); }

TEST(Symbols, AreTheFourBasesAndN) {
  for (std::size_t i = 0; i < genome::train::symbol_letters.size(); ++i) {
    const genome::Base base = genome::base_from_letter(genome::train::symbol_letters[i]);
    EXPECT_EQ(genome::train::symbol_of(base), static_cast<int>(i));
  }
  EXPECT_EQ(genome::train::symbol_of(genome::base_from_letter('R')), 4);
}

TEST(ContextEntropy, OfOrderZeroIsThatOfTheFrequencies) {
  EXPECT_DOUBLE_EQ(context_entropies(sequence_of("ACGT"), 0).at(0), 2);
  EXPECT_DOUBLE_EQ(context_entropies(sequence_of("AAAC"), 0).at(0), two_way(0.25));
  EXPECT_DOUBLE_EQ(context_entropies(sequence_of("ACGTN"), 0).at(0), std::log2(5.0));
  EXPECT_DOUBLE_EQ(context_entropies(sequence_of("GGGG"), 0).at(0), 0);
}

TEST(ContextEntropy, APeriodNeedsOneContext) {
  const auto entropies = context_entropies(sequence_of("ACGTACGTACGTACGT"), 2);
  EXPECT_DOUBLE_EQ(entropies.at(0), 2);
  EXPECT_DOUBLE_EQ(entropies.at(1), 0);
  EXPECT_DOUBLE_EQ(entropies.at(2), 0);
}

TEST(ContextEntropy, OfOrderOneIsTheMeanOverTheContexts) {
  // Behind A: A, C, C. Behind C: A, A. Five predictions, of which the three behind A are uncertain.
  const auto entropies = context_entropies(sequence_of("AACACA"), 1);
  EXPECT_DOUBLE_EQ(entropies.at(0), two_way(2.0 / 6));
  EXPECT_DOUBLE_EQ(entropies.at(1), 3.0 / 5 * two_way(1.0 / 3));
}

TEST(ContextEntropy, OfOrderTwoToldByHand) {
  // Contexts AA -> A, C; AC -> A; CA -> A. Four predictions, of which the two behind AA cost a bit each.
  EXPECT_DOUBLE_EQ(context_entropies(sequence_of("ACAAAC"), 2).at(2), 2.0 / 4);
}

TEST(ContextEntropy, CountsTheRepeatedSequenceToItsLength) {
  Sequence sequence = sequence_of("AAC");
  sequence.length = 4;
  EXPECT_DOUBLE_EQ(context_entropies(sequence, 0).at(0), two_way(0.25));
}

TEST(ContextEntropy, NothingToPredictIsZero) { EXPECT_EQ(context_entropies(sequence_of("AC"), 4).at(4), 0); }

}  // namespace
