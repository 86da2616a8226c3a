// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// State passing gives the numbers of one rank, forward and backward, in every layout and with every exchange.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/comm/reductions.hpp>
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

TEST(StatePassingBackward, NeedsOnlyWhatWasSaved) {
  const auto world = Communicator::world(Exec());
  const SequenceOperatorConfig config = odd(6, 2, StateExchange::automatic);
  const OperatorParameters<float> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::zigzag(world, 61);
  for (const Saving saving : {Saving::lean, Saving::full}) {
    BackwardCall<float> call{config, Strategy::state_passing, saving};
    const auto run = [&] { return call.run(world, layout, packed(2, documents_of_61), parameters.views()); };
    const auto same_operator = run();
    call.with_another = true;
    EXPECT_TRUE(run() == same_operator);
  }
}

/// Bytes that the rank which sends most sends in a forward of one row, in bfloat16, of a layer of Nemotron-H-8B.
double counted_bytes(const Communicator& world, Strategy strategy, StateExchange exchange,
                     const SequenceLayout& layout) {
  const SequenceOperatorConfig config{
      .heads = 128, .head_dim = 64, .groups = 8, .d_state = 128, .state_exchange = exchange};
  const OperatorParameters<bfloat16> parameters(config, Decay::initialised);
  const auto documents = DocumentMap::whole_rows(1, layout.length());
  const auto op = make_sequence_operator<bfloat16>(strategy, config);
  const auto call = [&] { (void)Call<bfloat16>{config, strategy}.run(*op, world, layout, documents, parameters); };
  call();  // also agrees on the layout
  const std::int64_t before = world.counters().total().bytes_sent;
  call();
  const Array<std::int64_t*> most("krait::test::most", 1);
  Kokkos::deep_copy(most, world.counters().total().bytes_sent - before);
  comm::all_reduce(Exec(), world, most, most, Reduction::max).wait();
  return values_of(most)[0];
}

TEST(StatePassing, SendsLittleBesideTheTokens) {
  const auto world = Communicator::world(Exec());
  if (world.size() != 8) GTEST_SKIP() << "volumes of 8 ranks";
  // Rows of 32768 tokens from short ones: bytes of tokens are proportional to the length, those of states do not know
  // it.
  constexpr std::int64_t length = 64;
  constexpr std::int64_t full_length = 32768;
  const auto contiguous = SequenceLayout::contiguous(world, length);
  const auto zigzag = SequenceLayout::zigzag(world, length);
  const auto of_states = [&](StateExchange exchange, const SequenceLayout& layout) {
    return counted_bytes(world, Strategy::state_passing, exchange, layout);
  };
  const auto of_tokens = [&](const SequenceLayout& layout) {
    return counted_bytes(world, Strategy::hidden_parallel, StateExchange::automatic, layout);
  };
  EXPECT_EQ(of_tokens(SequenceLayout::contiguous(world, 2 * length)), 2 * of_tokens(contiguous));
  EXPECT_EQ(of_states(StateExchange::chain, SequenceLayout::contiguous(world, 2 * length)),
            of_states(StateExchange::chain, contiguous));
  const double tokens = of_tokens(contiguous) * static_cast<double>(full_length) / static_cast<double>(length);
  EXPECT_EQ(tokens, static_cast<double>(full_length) / length * of_tokens(zigzag));
  EXPECT_LE(of_states(StateExchange::doubling, zigzag), tokens / 4);
  EXPECT_LE(of_states(StateExchange::all_gather, contiguous), tokens / 4);
  EXPECT_LE(of_states(StateExchange::doubling, contiguous), tokens / 10);
  EXPECT_LE(of_states(StateExchange::chain, contiguous), tokens / 30);
}

}  // namespace
