// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// A forward and backward of an operator with states of documents, and the same of one rank to compare with.

#include <gtest/gtest.h>

#include <algorithm>
#include <krait/parallel/sequence_operator.hpp>
#include <parallel/backward_call.hpp>
#include <parallel/sharded.hpp>
#include <string>
#include <support/random_view.hpp>
#include <support/view_values.hpp>
#include <vector>

namespace krait::test {

/// States of the convolution and of the scan, of all documents.
template <class V, class A>
struct States {
  Array<V***> conv;
  Array<A****> ssm;

  States() = default;
  States(const SequenceOperatorConfig& config, std::int64_t documents)
      : conv("krait::test::conv", static_cast<std::size_t>(documents), static_cast<std::size_t>(config.conv_channels()),
             static_cast<std::size_t>(config.d_conv - 1)),
        ssm("krait::test::ssm", static_cast<std::size_t>(documents), static_cast<std::size_t>(config.heads),
            static_cast<std::size_t>(config.head_dim), static_cast<std::size_t>(config.d_state)) {}

  static States normal(const SequenceOperatorConfig& config, std::int64_t documents, std::uint64_t seed) {
    const States states(config, documents);
    fill_normal(states.conv, seed);
    fill_normal(states.ssm, seed + 1);
    return states;
  }
  static States poisoned(const SequenceOperatorConfig& config, std::int64_t documents) {
    const States states(config, documents);
    poison(states.conv);
    poison(states.ssm);
    return states;
  }
};

template <Scalar T>
struct StatesCall {
  using A = accumulator_t<T>;
  using Shard = Array<T***>;

  SequenceOperatorConfig config;
  Strategy strategy;
  Saving saving = Saving::lean;
  bool conv = true;  ///< states of the convolution are given
  bool ssm = true;   ///< states of the scan are given

  struct Result {
    Shard y, dxBCdt;
    States<T, A> final;
    States<A, A> dinitial;
    NamedGradients parameters;
  };

  [[nodiscard]] Result run(const Communicator& context, const SequenceLayout& layout, const DocumentMap& documents,
                           const SequenceOperatorParameters<T, Exec>& parameters, const Shard& xBCdt, const Shard& dy,
                           const States<T, A>& initial, const States<A, A>& dfinal) const {
    const auto op = make_sequence_operator<T>(strategy, config);
    return run(*op, context, layout, documents, parameters, xBCdt, dy, initial, dfinal);
  }

  [[nodiscard]] Result run(SequenceOperator<T>& op, const Communicator& context, const SequenceLayout& layout,
                           const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                           const Shard& xBCdt, const Shard& dy, const States<T, A>& initial,
                           const States<A, A>& dfinal) const {
    const Exec exec;
    const std::int64_t rows = documents.rows();
    const auto given = [this](const auto& states) {
      auto part = states;
      if (!conv) part.conv = {};
      if (!ssm) part.ssm = {};
      return part;
    };
    Result result;
    result.y = poisoned_view<Shard>(rows, layout.local_length(), config.d_inner());
    result.dxBCdt = poisoned_view<Shard>(rows, layout.local_length(), config.input_width());
    result.final = given(States<T, A>::poisoned(config, documents.documents()));
    result.dinitial = given(States<A, A>::poisoned(config, documents.documents()));
    const States<T, A> begin = given(initial);
    const States<A, A> end = given(dfinal);
    const auto memory =
        poisoned_view<Array<float*>>((std::max(op.workspace_bytes(context, layout, rows, false),
                                               op.backward_workspace_bytes(context, layout, rows, saving, false)) +
                                      3) /
                                     4);
    const auto workspace = make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(memory.data()),
                                                            {4 * static_cast<std::int64_t>(memory.size())});
    const Array<std::byte*> saved("krait::test::saved", op.saved_bytes(context, layout, rows, saving));
    const OperatorGradients<T> gradients(parameters);
    op.forward(exec, context, layout, documents, parameters,
               {.xBCdt = xBCdt,
                .y = result.y,
                .workspace = workspace,
                .saved = saved,
                .saving = saving,
                .initial = {.conv = begin.conv, .ssm = begin.ssm},
                .final = {.conv = result.final.conv, .ssm = result.final.ssm}});
    op.backward(exec, context, layout, documents, parameters, gradients.views,
                {.xBCdt = xBCdt,
                 .dy = dy,
                 .dxBCdt = result.dxBCdt,
                 .saved = saved,
                 .saving = saving,
                 .workspace = workspace,
                 .initial = {.conv = begin.conv, .ssm = begin.ssm},
                 .dfinal = {.conv = end.conv, .ssm = end.ssm},
                 .dinitial = {.conv = result.dinitial.conv, .ssm = result.dinitial.ssm}});
    exec.fence("krait::test: both are done");
    result.parameters = gradients.sums(context);
    return result;
  }
};

/// Expects the shard of this rank, and the sums of what ranks have parts of, to be those of one rank.
template <Scalar T>
void expect_states_close(const typename StatesCall<T>::Result& got, const typename StatesCall<T>::Result& want,
                         const Communicator& context, const SequenceLayout& layout, double tolerance) {
  EXPECT_LE(relative_rms(values_of(got.y), shard_of_whole(want.y, layout)), tolerance);
  EXPECT_LE(relative_rms(values_of(got.dxBCdt), shard_of_whole(want.dxBCdt, layout)), tolerance);
  EXPECT_TRUE(gradients_close(got.parameters, want.parameters, tolerance));
  // Inputs are copied, so their sum over ranks must be exact: one rank has each, the others 0.
  EXPECT_EQ(sum_over_ranks(context, got.final.conv), values_of(want.final.conv));
  EXPECT_LE(relative_rms(sum_over_ranks(context, got.final.ssm), values_of(want.final.ssm)), tolerance);
  EXPECT_LE(relative_rms(sum_over_ranks(context, got.dinitial.conv), values_of(want.dinitial.conv)), tolerance);
  EXPECT_LE(relative_rms(sum_over_ranks(context, got.dinitial.ssm), values_of(want.dinitial.ssm)), tolerance);
}

}  // namespace krait::test
