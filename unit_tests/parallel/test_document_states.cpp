// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// States that documents begin and end with: a sequence may be cut and goes on, and ranks agree with one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <parallel/compare.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

using Conv = Array<double***>;
using Ssm = Array<double****>;

/// A call with states, forward and backward, in double precision.
struct StatesCall {
  SequenceOperatorConfig config;
  Strategy strategy;
  const OperatorParameters<double>& parameters;

  struct Result {
    Array<double***> y, dxBCdt;
    Conv final_conv, dinitial_conv;
    Ssm final_ssm, dinitial_ssm;
  };

  [[nodiscard]] Conv conv_states(std::int64_t n, int seed) const {
    const Conv view("krait::test::conv", static_cast<std::size_t>(n), static_cast<std::size_t>(config.conv_channels()),
                    static_cast<std::size_t>(config.d_conv - 1));
    fill_normal(view, static_cast<std::uint64_t>(seed));
    return view;
  }
  [[nodiscard]] Ssm ssm_states(std::int64_t n, int seed) const {
    const Ssm view("krait::test::ssm", static_cast<std::size_t>(n), static_cast<std::size_t>(config.heads),
                   static_cast<std::size_t>(config.head_dim), static_cast<std::size_t>(config.d_state));
    fill_normal(view, static_cast<std::uint64_t>(seed));
    return view;
  }

  [[nodiscard]] Result run(const Communicator& context, const SequenceLayout& layout, const DocumentMap& documents,
                           const Array<double***>& xBCdt, const Array<double***>& dy, const Conv& initial_conv,
                           const Ssm& initial_ssm, const Conv& dfinal_conv, const Ssm& dfinal_ssm,
                           Saving saving = Saving::lean) const {
    const Exec exec;
    const auto op = make_sequence_operator<double>(strategy, config);
    const std::int64_t rows = documents.rows();
    const std::int64_t n = documents.documents();
    Result result;
    result.y = poisoned_view<Array<double***>>(rows, layout.local_length(), config.d_inner());
    result.dxBCdt = poisoned_view<Array<double***>>(rows, layout.local_length(), config.input_width());
    result.final_conv = conv_states(n, 90);
    result.final_ssm = ssm_states(n, 91);
    result.dinitial_conv = conv_states(n, 92);
    result.dinitial_ssm = ssm_states(n, 93);
    const Array<std::byte*> workspace("krait::test::workspace",
                                      std::max(op->workspace_bytes(context, layout, rows, false),
                                               op->backward_workspace_bytes(context, layout, rows, saving, false)));
    const Array<std::byte*> saved("krait::test::saved", op->saved_bytes(context, layout, rows, saving));
    op->forward(exec, context, layout, documents, parameters.views(),
                {.xBCdt = xBCdt,
                 .y = result.y,
                 .workspace = workspace,
                 .saved = saved,
                 .saving = saving,
                 .initial = {.conv = initial_conv, .ssm = initial_ssm},
                 .final = {.conv = result.final_conv, .ssm = result.final_ssm}});
    op->backward(exec, context, layout, documents, parameters.views(), {},
                 {.xBCdt = xBCdt,
                  .dy = dy,
                  .dxBCdt = result.dxBCdt,
                  .saved = saved,
                  .saving = saving,
                  .workspace = workspace,
                  .initial = {.conv = initial_conv, .ssm = initial_ssm},
                  .dfinal = {.conv = dfinal_conv, .ssm = dfinal_ssm},
                  .dinitial = {.conv = result.dinitial_conv, .ssm = result.dinitial_ssm}});
    exec.fence("krait::test: both are done");
    return result;
  }
};

TEST(DocumentStates, RanksAgreeWithOne) {
  const auto world = Communicator::world(Exec());
  for (const std::int64_t groups : {1, 4}) {
    const SequenceOperatorConfig config = small(8, groups, world);
    const OperatorParameters<double> parameters(config, Decay::slow);
    const std::int64_t rows = 2;
    const DocumentMap documents = packed(rows, documents_of_61);
    const std::int64_t n = documents.documents();
    const StatesCall alone{config, Strategy::local, parameters};
    const Conv initial_conv = alone.conv_states(n, 5);
    const Ssm initial_ssm = alone.ssm_states(n, 6);
    const Conv dfinal_conv = alone.conv_states(n, 7);
    const Ssm dfinal_ssm = alone.ssm_states(n, 8);
    const auto shards = [&](const SequenceLayout& layout) {
      return std::pair(
          make_shard<double>(layout, rows, config.input_width(), normal_values(3, 61, config.input_width())),
          make_shard<double>(layout, rows, config.d_inner(), normal_values(4, 61, config.d_inner())));
    };
    const auto whole_layout = SequenceLayout::contiguous(Place{}, 61);
    const auto [x, dy] = shards(whole_layout);
    const auto want = alone.run(Communicator::self(), whole_layout, documents, x, dy, initial_conv, initial_ssm,
                                dfinal_conv, dfinal_ssm);
    for (const auto& layout : all_layouts(world.place(), 61, documents_of_61)) {
      for (const Saving saving : {Saving::lean, Saving::full}) {
        const auto [x_shard, dy_shard] = shards(layout);
        const auto got = StatesCall{config, Strategy::hidden_parallel, parameters}.run(
            world, layout, documents, x_shard, dy_shard, initial_conv, initial_ssm, dfinal_conv, dfinal_ssm, saving);
        EXPECT_LE(relative_rms(values_of(got.y), shard_of_whole(want.y, layout)), 1e-12) << layout.description();
        EXPECT_LE(relative_rms(values_of(got.dxBCdt), shard_of_whole(want.dxBCdt, layout)), 1e-12)
            << layout.description();
        // Inputs are copied, so their sum over ranks must be exact: one rank has each, the others 0.
        EXPECT_EQ(sum_over_ranks(world, got.final_conv), values_of(want.final_conv)) << layout.description();
        EXPECT_LE(relative_rms(sum_over_ranks(world, got.final_ssm), values_of(want.final_ssm)), 1e-12);
        EXPECT_LE(relative_rms(sum_over_ranks(world, got.dinitial_conv), values_of(want.dinitial_conv)), 1e-12);
        EXPECT_LE(relative_rms(sum_over_ranks(world, got.dinitial_ssm), values_of(want.dinitial_ssm)), 1e-12);
      }
    }
  }
}

/// Tokens [begin, end) of a one-row tensor, as a tensor of their own.
Array<double***> part(const Array<double***>& whole, std::int64_t begin, std::int64_t end) {
  const Array<double***> result("krait::test::part", 1, static_cast<std::size_t>(end - begin), whole.extent(2));
  Kokkos::deep_copy(result, Kokkos::subview(whole, Kokkos::ALL, Kokkos::make_pair(begin, end), Kokkos::ALL));
  return result;
}

TEST(DocumentStates, ASequenceThatIsCutGoesOn) {
  const auto self = Communicator::self();
  const SequenceOperatorConfig config = small(4, 2, self);
  const OperatorParameters<double> parameters(config, Decay::slow);
  const StatesCall call{config, Strategy::local, parameters};
  const std::int64_t length = 40;
  const auto layout_of = [](std::int64_t tokens) { return SequenceLayout::contiguous(Place{}, tokens); };
  const auto rows_of = [](std::int64_t tokens) { return DocumentMap::whole_rows(1, tokens); };
  const auto x =
      make_shard<double>(layout_of(length), 1, config.input_width(), normal_values(3, length, config.input_width()));
  const auto dy =
      make_shard<double>(layout_of(length), 1, config.d_inner(), normal_values(4, length, config.d_inner()));
  const Conv initial_conv = call.conv_states(1, 5);
  const Ssm initial_ssm = call.ssm_states(1, 6);
  const Conv dfinal_conv = call.conv_states(1, 7);
  const Ssm dfinal_ssm = call.ssm_states(1, 8);
  const auto whole =
      call.run(self, layout_of(length), rows_of(length), x, dy, initial_conv, initial_ssm, dfinal_conv, dfinal_ssm);
  for (const std::int64_t cut : {1, 2, 17, 39}) {
    const auto run = [&](std::int64_t begin, std::int64_t end, const Conv& conv, const Ssm& ssm, const Conv& dconv,
                         const Ssm& dssm) {
      return call.run(self, layout_of(end - begin), rows_of(end - begin), part(x, begin, end), part(dy, begin, end),
                      conv, ssm, dconv, dssm);
    };
    const auto before = run(0, cut, initial_conv, initial_ssm, dfinal_conv, dfinal_ssm);  // for its final states
    const auto second = run(cut, length, before.final_conv, before.final_ssm, dfinal_conv, dfinal_ssm);
    const auto first = run(0, cut, initial_conv, initial_ssm, second.dinitial_conv, second.dinitial_ssm);
    EXPECT_LE(relative_rms(values_of(first.y), values_of(part(whole.y, 0, cut))), 1e-12) << cut;
    EXPECT_LE(relative_rms(values_of(second.y), values_of(part(whole.y, cut, length))), 1e-12) << cut;
    EXPECT_LE(relative_rms(values_of(first.dxBCdt), values_of(part(whole.dxBCdt, 0, cut))), 1e-12) << cut;
    EXPECT_LE(relative_rms(values_of(second.dxBCdt), values_of(part(whole.dxBCdt, cut, length))), 1e-12) << cut;
    EXPECT_EQ(values_of(second.final_conv), values_of(whole.final_conv)) << cut;
    EXPECT_LE(relative_rms(values_of(second.final_ssm), values_of(whole.final_ssm)), 1e-12) << cut;
    EXPECT_LE(relative_rms(values_of(first.dinitial_conv), values_of(whole.dinitial_conv)), 1e-12) << cut;
    EXPECT_LE(relative_rms(values_of(first.dinitial_ssm), values_of(whole.dinitial_ssm)), 1e-12) << cut;
  }
}

TEST(DocumentStates, WrongExtentsAndStrategies) {
  const auto self = Communicator::self();
  const SequenceOperatorConfig config = small(4, 2, self);
  const OperatorParameters<double> parameters(config, Decay::slow);
  const auto layout = SequenceLayout::contiguous(Place{}, 5);
  const auto documents = DocumentMap::whole_rows(2, 5);
  const auto x = make_shard<double>(layout, 2, config.input_width(), normal_values(3, 5, config.input_width()));
  const auto dy = make_shard<double>(layout, 2, config.d_inner(), normal_values(4, 5, config.d_inner()));
  const auto run = [&](Strategy strategy, std::int64_t n) {
    const StatesCall call{config, strategy, parameters};
    (void)call.run(self, layout, documents, x, dy, call.conv_states(n, 5), call.ssm_states(2, 6),
                   call.conv_states(2, 7), call.ssm_states(2, 8));
  };
  for (const Strategy strategy : {Strategy::local, Strategy::hidden_parallel})
    EXPECT_THAT([&] { run(strategy, 3); }, ThrowsMessage<ShapeError>(HasSubstr("initial.conv is (3, ")));
  EXPECT_THAT([&] { run(Strategy::state_passing, 2); },
              ThrowsMessage<ConfigError>(HasSubstr("states of documents are given, expected none")));
}

}  // namespace
