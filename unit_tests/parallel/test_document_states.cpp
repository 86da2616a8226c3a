// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// States that documents begin and end with: a sequence may be cut and goes on, and ranks agree with one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <parallel/states_call.hpp>
#include <support/callback_recorder.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

/// A strategy, and the exchange of the one that has several.
struct Way {
  Strategy strategy;
  StateExchange exchange = StateExchange::automatic;
};

constexpr std::array shared_ways = {
    Way{Strategy::hidden_parallel}, Way{Strategy::state_passing, StateExchange::all_gather},
    Way{Strategy::state_passing, StateExchange::doubling}, Way{Strategy::state_passing, StateExchange::chain}};

/// Rows, documents and a configuration; all ranks have the same, and one rank's results.
template <Scalar T>
struct StatesProblem {
  using A = accumulator_t<T>;
  using Call = StatesCall<T>;

  SequenceOperatorConfig config;
  DocumentMap documents;
  OperatorParameters<T> parameters;
  States<T, A> initial;
  States<A, A> dfinal;
  Values dy;  ///< of all tokens; random when empty

  StatesProblem(const SequenceOperatorConfig& given, const DocumentMap& map, Values gradients = {})
      : config(given),
        documents(map),
        parameters(config, Decay::slow),
        initial(States<T, A>::normal(config, documents.documents(), 5)),
        dfinal(States<A, A>::normal(config, documents.documents(), 7)),
        dy(gradients ? std::move(gradients) : normal_values(4, documents.length(), config.d_inner())) {}

  [[nodiscard]] typename Call::Result run(const Call& call, const Communicator& context,
                                          const SequenceLayout& layout) const {
    const auto x = make_shard<T>(layout, documents.rows(), config.input_width(),
                                 normal_values(3, documents.length(), config.input_width()));
    return call.run(context, layout, documents, parameters.views(), x,
                    make_shard<T>(layout, documents.rows(), config.d_inner(), dy), initial, dfinal);
  }

  [[nodiscard]] typename Call::Result one_rank(bool conv = true, bool ssm = true) const {
    return run({.config = config, .strategy = Strategy::local, .conv = conv, .ssm = ssm}, Communicator::self(),
               SequenceLayout::contiguous(Place{}, documents.length()));
  }

  [[nodiscard]] Call split(const Way& way, Saving saving = Saving::lean, bool conv = true, bool ssm = true) const {
    SequenceOperatorConfig split_config = config;
    split_config.state_exchange = way.exchange;
    return {.config = split_config, .strategy = way.strategy, .saving = saving, .conv = conv, .ssm = ssm};
  }

  /// Every strategy, layout and saving mode against one rank. `cu` cuts the zigzag per document.
  void expect_one_rank(const std::vector<std::int64_t>& cu) const {
    const auto world = Communicator::world(Exec());
    const auto want = one_rank();
    for (const auto& layout : all_layouts(world.place(), documents.length(), cu)) {
      for (const Way& way : shared_ways) {
        for (const Saving saving : {Saving::lean, Saving::full}) {
          SCOPED_TRACE(layout.description() + ", " + name_of(way.strategy) + ", " + name_of(way.exchange) +
                       ", saving " + (saving == Saving::lean ? "lean" : "full"));
          expect_states_close<T>(run(split(way, saving), world, layout), want, world, layout, split_tolerance<T>());
        }
      }
    }
  }
};

SequenceOperatorConfig for_world(std::int64_t heads, std::int64_t groups) {
  return small(heads, groups, Communicator::world(Exec()));
}

TEST(DocumentStates, RanksAgreeWithOneDouble) {
  for (const std::int64_t groups : {1, 4})
    StatesProblem<double>(for_world(8, groups), packed(2, documents_of_61)).expect_one_rank(documents_of_61);
}

TEST(DocumentStates, RanksAgreeWithOneFloat) {
  StatesProblem<float>(for_world(8, 2), packed(2, documents_of_61)).expect_one_rank(documents_of_61);
}

/// With a group per head: parts of a group's gradient that ranks share are rounded once more.
TEST(DocumentStates, RanksAgreeWithOneInHalfPrecision) {
  StatesProblem<bfloat16>(for_world(8, 8), packed(1, documents_of_61)).expect_one_rank(documents_of_61);
}

TEST(DocumentStates, ADocumentThatSpansAllRanks) {
  StatesProblem<double>(for_world(4, 2), DocumentMap::whole_rows(3, 61)).expect_one_rank({0, 61});
}

/// Documents of every length around that of the window, so that windows reach over several documents and segments.
TEST(DocumentStates, DocumentsShorterThanTheWindow) {
  const std::vector<std::int64_t> cu = {0, 0, 1, 3, 3, 6, 10, 11, 12, 17, 19, 23, 23};
  for (const std::int64_t taps : {1, 2, 4, 16}) {
    SequenceOperatorConfig config = for_world(4, 2);
    config.d_conv = taps;
    StatesProblem<double>(config, packed(2, cu)).expect_one_rank(cu);
    StatesProblem<double>(config, DocumentMap::whole_rows(2, 23)).expect_one_rank({0, 23});
  }
}

/// Ranks without tokens, and documents without.
TEST(DocumentStates, AnyLength) {
  for (const std::int64_t length : {0, 1, 2, 3, 4, 7, 9}) {
    const std::vector<std::int64_t> cu = {0, 0, length / 2, length, length};
    StatesProblem<double>(for_world(2, 1), packed(2, cu)).expect_one_rank(cu);
  }
}

/// Empty documents are with rank 0, whether it has tokens or not.
TEST(DocumentStates, AllTokensOnTheLastRank) {
  const auto world = Communicator::world(Exec());
  const StatesProblem<double> problem(for_world(4, 2), packed(2, {0, 0, 5, 5, 11, 11}));
  std::vector<std::vector<std::int64_t>> tokens(static_cast<std::size_t>(world.size()));
  for (std::int64_t t = 0; t < 11; ++t) tokens.back().push_back(t);
  const auto layout = SequenceLayout::explicit_tokens(world.place(), tokens);
  for (const Way& way : shared_ways)
    expect_states_close<double>(problem.run(problem.split(way), world, layout), problem.one_rank(), world, layout,
                                1e-12);
}

TEST(DocumentStates, PaddingBetweenDocuments) {
  const std::vector<std::int64_t> cu = {0, 9, 9, 20, 26, 33};
  const auto documents = DocumentMap::from_cu_seqlens(cu, {7, 0, 11, 0, 2}, 33);
  StatesProblem<double>(for_world(4, 2), documents).expect_one_rank(cu);
}

/// What is given by itself has no other to lean on.
TEST(DocumentStates, OneKindOfStateAlone) {
  const auto world = Communicator::world(Exec());
  const StatesProblem<double> problem(for_world(4, 2), packed(2, documents_of_61));
  for (const bool conv : {false, true}) {
    const auto want = problem.one_rank(conv, !conv);
    for (const auto& layout : all_layouts(world.place(), 61, documents_of_61)) {
      for (const Way& way : shared_ways) {
        SCOPED_TRACE(layout.description() + ", " + name_of(way.strategy) + ", conv " + std::to_string(conv));
        expect_states_close<double>(problem.run(problem.split(way, Saving::lean, conv, !conv), world, layout), want,
                                    world, layout, 1e-12);
      }
    }
  }
}

/// The only gradient is that of the state at the very end; it reaches the state at the very beginning.
TEST(DocumentStates, GradientsTravelFromTheLastTokenToTheFirst) {
  const auto world = Communicator::world(Exec());
  const StatesProblem<double> problem(for_world(4, 2), DocumentMap::whole_rows(1, 61),
                                      [](std::int64_t, std::int64_t, std::int64_t) { return 0.0F; });
  const auto want = problem.one_rank();
  const std::vector<double> reached = values_of(want.dinitial.ssm);
  ASSERT_GT(*std::max_element(reached.begin(), reached.end()), 1e-3);
  for (const auto& layout : all_layouts(world.place(), 61, {0, 61}))
    for (const Way& way : shared_ways)
      expect_states_close<double>(problem.run(problem.split(way), world, layout), want, world, layout, 1e-12);
}

/// Tokens [begin, end) of a row, as values of a row of their own.
Values from_token(const Values& whole, std::int64_t begin) {
  return [whole, begin](std::int64_t b, std::int64_t t, std::int64_t c) { return whole(b, begin + t, c); };
}

/// The whole, which every rank gets as the sum of the ranks' parts.
template <class V, class A>
States<V, A> whole_of(const Communicator& context, const States<V, A>& parts, const SequenceOperatorConfig& config) {
  const States<V, A> whole(config, static_cast<std::int64_t>(parts.conv.extent(0)));
  assign(whole.conv, sum_over_ranks(context, parts.conv));
  assign(whole.ssm, sum_over_ranks(context, parts.ssm));
  return whole;
}

/// Two calls, one after the other, joined by states, make what one rank makes of the sequence in one call.
void expect_cut_goes_on(const Communicator& context, const Way& way) {
  using Pair = States<double, double>;
  SequenceOperatorConfig config = small(4, 2, context);
  config.state_exchange = way.exchange;
  const OperatorParameters<double> parameters(config, Decay::slow);
  const std::int64_t length = 40;
  const Values x = normal_values(3, length, config.input_width());
  const Values dy = normal_values(4, length, config.d_inner());
  const Pair initial = Pair::normal(config, 1, 5);
  const Pair dfinal = Pair::normal(config, 1, 7);
  const auto run = [&](Strategy strategy, const Communicator& on, std::int64_t begin, std::int64_t end,
                       const Pair& enters, const Pair& leaves) {
    const auto layout = SequenceLayout::zigzag(on.place(), end - begin);
    return StatesCall<double>{config, strategy}.run(
        on, layout, DocumentMap::whole_rows(1, end - begin), parameters.views(),
        make_shard<double>(layout, 1, config.input_width(), from_token(x, begin)),
        make_shard<double>(layout, 1, config.d_inner(), from_token(dy, begin)), enters, leaves);
  };
  const auto whole = run(Strategy::local, Communicator::self(), 0, length, initial, dfinal);
  const auto part = [&](const Array<double***>& of, std::int64_t begin, std::int64_t end) {
    const Array<double***> tokens("krait::test::part", 1, static_cast<std::size_t>(end - begin), of.extent(2));
    Kokkos::deep_copy(tokens, Kokkos::subview(of, Kokkos::ALL, Kokkos::make_pair(begin, end), Kokkos::ALL));
    return shard_of_whole(tokens, SequenceLayout::zigzag(context.place(), end - begin));
  };
  for (const std::int64_t cut : {1, 2, 17, 39}) {
    SCOPED_TRACE(cut);
    const auto before = run(way.strategy, context, 0, cut, initial, dfinal);  // for its final states
    const auto second = run(way.strategy, context, cut, length, whole_of(context, before.final, config), dfinal);
    const auto first = run(way.strategy, context, 0, cut, initial, whole_of(context, second.dinitial, config));
    EXPECT_LE(relative_rms(values_of(first.y), part(whole.y, 0, cut)), 1e-12);
    EXPECT_LE(relative_rms(values_of(second.y), part(whole.y, cut, length)), 1e-12);
    EXPECT_LE(relative_rms(values_of(first.dxBCdt), part(whole.dxBCdt, 0, cut)), 1e-12);
    EXPECT_LE(relative_rms(values_of(second.dxBCdt), part(whole.dxBCdt, cut, length)), 1e-12);
    EXPECT_EQ(sum_over_ranks(context, second.final.conv), values_of(whole.final.conv));
    EXPECT_LE(relative_rms(sum_over_ranks(context, second.final.ssm), values_of(whole.final.ssm)), 1e-12);
    EXPECT_LE(relative_rms(sum_over_ranks(context, first.dinitial.conv), values_of(whole.dinitial.conv)), 1e-12);
    EXPECT_LE(relative_rms(sum_over_ranks(context, first.dinitial.ssm), values_of(whole.dinitial.ssm)), 1e-12);
  }
}

TEST(DocumentStates, ASequenceThatIsCutGoesOn) {
  expect_cut_goes_on(Communicator::self(), {Strategy::local});
  for (const Way& way : shared_ways) expect_cut_goes_on(Communicator::world(Exec()), way);
}

/// A second call with the same object gives the same bits and allocates nothing, whatever came between.
TEST(DocumentStates, ASecondCallGivesTheSameBits) {
  const auto world = Communicator::world(Exec());
  const auto layout = SequenceLayout::zigzag(world, 61);
  const StatesProblem<float> problem(for_world(8, 2), packed(2, documents_of_61));
  const auto x =
      make_shard<float>(layout, 2, problem.config.input_width(), normal_values(3, 61, problem.config.input_width()));
  const auto dy = make_shard<float>(layout, 2, problem.config.d_inner(), problem.dy);
  for (const Way& way : shared_ways) {
    SCOPED_TRACE(std::string(name_of(way.strategy)) + ", " + name_of(way.exchange));
    const StatesCall<float> with = problem.split(way);
    const StatesCall<float> without = problem.split(way, Saving::lean, false, false);
    const auto op = make_sequence_operator<float>(way.strategy, with.config);
    const auto run = [&](const StatesCall<float>& call) {
      return call.run(*op, world, layout, problem.documents, problem.parameters.views(), x, dy, problem.initial,
                      problem.dfinal);
    };
    const auto values = [](const StatesCall<float>::Result& result) {
      return std::vector{values_of(result.y),         values_of(result.dxBCdt),        values_of(result.final.conv),
                         values_of(result.final.ssm), values_of(result.dinitial.conv), values_of(result.dinitial.ssm)};
    };
    const auto first = run(with);
    (void)run(without);
    std::vector<std::string> allocations;
    const auto second = [&] {
      const CallbackRecorder recorder;
      const auto result = run(with);
      allocations = recorder.allocations();
      return result;
    }();
    EXPECT_TRUE(values(second) == values(first));
    EXPECT_TRUE(second.parameters == first.parameters);
    EXPECT_THAT(allocations, testing::Each(StartsWith("krait::test")));
  }
}

/// States of documents cost no message: the states are full-size on every rank.
TEST(DocumentStates, NothingMoreIsSent) {
  auto world = Communicator::world(Exec());
  const StatesProblem<double> problem(for_world(4, 2), packed(2, documents_of_61));
  const auto layout = SequenceLayout::zigzag(world, 61);
  for (const Way& way : shared_ways) {
    const auto sent = [&](bool given) {
      world.reset_counters();
      (void)problem.run(problem.split(way, Saving::lean, given, given), world, layout);
      auto counts = world.counters();
      std::vector<std::int64_t> numbers;
      for (const CommOperation operation :
           {CommOperation::send, CommOperation::recv, CommOperation::shift, CommOperation::all_to_all_v,
            CommOperation::all_gather, CommOperation::all_gather_v}) {
        numbers.push_back(counts[operation].calls);
        numbers.push_back(counts[operation].bytes_sent);
        numbers.push_back(counts[operation].bytes_received);
      }
      return numbers;
    };
    EXPECT_EQ(sent(true), sent(false)) << name_of(way.strategy) << ", " << name_of(way.exchange);
  }
}

/// One rank alone has states of other extents; all hear of it, and which rank it was.
TEST(DocumentStates, WrongExtentsOnOneRank) {
  const auto world = Communicator::world(Exec());
  const int last = world.size() - 1;
  const SequenceOperatorConfig config = for_world(4, 2);
  const OperatorParameters<double> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::contiguous(world, 15);
  const auto documents = DocumentMap::whole_rows(2, 15);
  const auto x = make_shard<double>(layout, 2, config.input_width(), normal_values(3, 15, config.input_width()));
  const auto dy = make_shard<double>(layout, 2, config.d_inner(), normal_values(4, 15, config.d_inner()));
  using Pair = States<double, double>;
  const Pair right = Pair::normal(config, 2, 5);
  const Pair wrong = world.rank() == last ? Pair::normal(config, 3, 5) : right;
  const std::string rank = world.size() == 1 ? "" : "rank " + std::to_string(last) + ": ";
  for (const Strategy strategy : {Strategy::hidden_parallel, Strategy::state_passing}) {
    const StatesCall<double> both{config, strategy};
    const StatesCall<double> conv{config, strategy, Saving::lean, true, false};
    const StatesCall<double> ssm{config, strategy, Saving::lean, false, true};
    const auto message = [&](const char* direction, const char* text) {
      const char* type = strategy == Strategy::state_passing ? "krait::StatePassing::" : "krait::HiddenParallel::";
      return AllOf(StartsWith(rank + type + direction), HasSubstr(text), HasSubstr("expected (2, "));
    };
    const auto run = [&](const StatesCall<double>& call, const Pair& initial, const Pair& dfinal) {
      (void)call.run(world, layout, documents, parameters.views(), x, dy, initial, dfinal);
    };
    EXPECT_THAT([&] { run(both, wrong, right); },
                ThrowsMessage<ShapeError>(message("forward", ": initial.conv is (3, ")));
    EXPECT_THAT([&] { run(ssm, wrong, right); },
                ThrowsMessage<ShapeError>(message("forward", ": initial.ssm is (3, ")));
    EXPECT_THAT([&] { run(both, right, wrong); },
                ThrowsMessage<ShapeError>(message("backward", ": dfinal.conv is (3, ")));
    EXPECT_THAT([&] { run(ssm, right, wrong); },
                ThrowsMessage<ShapeError>(message("backward", ": dfinal.ssm is (3, ")));
    EXPECT_NO_THROW(run(conv, right, right));
  }
}

}  // namespace
