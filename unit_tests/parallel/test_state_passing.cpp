// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// State passing gives the numbers of one rank, forward and backward, in every layout and with every exchange.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <krait/parallel/state_passing.hpp>
#include <parallel/compare.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)

constexpr std::array exchanges = {StateExchange::all_gather, StateExchange::doubling, StateExchange::chain};

/// Heads and groups need not suit the ranks.
SequenceOperatorConfig odd(std::int64_t heads, std::int64_t groups, StateExchange exchange) {
  SequenceOperatorConfig config = small(heads, groups, Communicator::self());
  config.state_exchange = exchange;
  return config;
}

TEST(StatePassing, EqualsOneRankFloat) {
  for (const StateExchange exchange : exchanges)
    for (const std::int64_t rows : {1, 3})
      compare_with_one_rank<float>(Strategy::state_passing, odd(6, 2, exchange), rows, 61, documents_of_61,
                                   Decay::initialised);
}

TEST(StatePassing, EqualsOneRankDouble) {
  for (const StateExchange exchange : exchanges)
    for (const std::int64_t rows : {1, 2})
      compare_with_one_rank<double>(Strategy::state_passing, odd(5, 5, exchange), rows, 61, documents_of_61,
                                    Decay::slow);
}

TEST(StatePassing, EqualsOneRankInHalfPrecision) {
  compare_with_one_rank<bfloat16>(Strategy::state_passing, odd(4, 2, StateExchange::automatic), 2, 61, documents_of_61,
                                  Decay::initialised);
  compare_with_one_rank<float16>(Strategy::state_passing, odd(4, 2, StateExchange::automatic), 2, 61, documents_of_61,
                                 Decay::initialised);
}

TEST(StatePassing, AnyLength) {
  for (const std::int64_t length : {1, 2, 3, 4, 5, 7, 8, 9, 17})
    for (const StateExchange exchange : exchanges)
      compare_with_one_rank<double>(Strategy::state_passing, odd(3, 1, exchange), 2, length, {0, length / 2, length},
                                    Decay::slow);
}

TEST(StatePassing, WindowsThatReachOverSeveralRanks) {
  for (const std::int64_t taps : {1, 2, 9, 16}) {
    SequenceOperatorConfig config = odd(2, 1, StateExchange::automatic);
    config.d_conv = taps;
    compare_with_one_rank<double>(Strategy::state_passing, config, 2, 19, {0, 2, 3, 11, 19}, Decay::slow);
    compare_backward_with_one_rank<double>(Strategy::state_passing, config, 2, 19, {0, 2, 3, 11, 19}, Decay::slow);
  }
}

TEST(StatePassingBackward, EqualsOneRankFloat) {
  for (const StateExchange exchange : exchanges)
    compare_backward_with_one_rank<float>(Strategy::state_passing, odd(6, 2, exchange), 2, 61, documents_of_61,
                                          Decay::initialised);
}

TEST(StatePassingBackward, EqualsOneRankDouble) {
  for (const StateExchange exchange : exchanges)
    compare_backward_with_one_rank<double>(Strategy::state_passing, odd(5, 5, exchange), 2, 61, documents_of_61,
                                           Decay::slow);
}

TEST(StatePassingBackward, EqualsOneRankInHalfPrecision) {
  compare_backward_with_one_rank<bfloat16>(Strategy::state_passing, odd(4, 2, StateExchange::automatic), 1, 61,
                                           documents_of_61, Decay::initialised);
  compare_backward_with_one_rank<float16>(Strategy::state_passing, odd(4, 2, StateExchange::automatic), 1, 61,
                                          documents_of_61, Decay::initialised);
}

TEST(StatePassingBackward, AnyLength) {
  for (const std::int64_t length : {1, 2, 3, 4, 7, 9, 17})
    for (const StateExchange exchange : exchanges)
      compare_backward_with_one_rank<double>(Strategy::state_passing, odd(3, 1, exchange), 2, length,
                                             {0, length / 2, length}, Decay::slow);
}

}  // namespace
