// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// A forward of an operator and its backward, on shards of a problem.

#include <gtest/gtest.h>

#include <functional>
#include <krait/parallel/sequence_operator.hpp>
#include <parallel/sharded.hpp>
#include <support/allclose.hpp>
#include <support/random_view.hpp>
#include <vector>

namespace krait::test {

/// Values of a (row, token, column).
using Values = std::function<float(std::int64_t, std::int64_t, std::int64_t)>;

struct Gradients {
  std::vector<double> dxBCdt;  ///< of this rank's tokens
  NamedGradients parameters;   ///< summed over ranks

  friend bool operator==(const Gradients&, const Gradients&) = default;
};

template <Scalar T>
struct BackwardCall {
  SequenceOperatorConfig config;
  Strategy strategy;
  Saving saving = Saving::lean;
  bool overwrite_dy = false;
  Values input = {};
  Values dy = {};
  bool with_another = false;  ///< the backward is that of an operator which has made no forward

  [[nodiscard]] Gradients run(const Communicator& context, const SequenceLayout& layout, const DocumentMap& documents,
                              const SequenceOperatorParameters<T, Exec>& parameters) const {
    const auto op = make_sequence_operator<T>(strategy, config);
    return run(*op, context, layout, documents, parameters);
  }

  /// A forward that saves, then the backward.
  [[nodiscard]] Gradients run(SequenceOperator<T>& op, const Communicator& context, const SequenceLayout& layout,
                              const DocumentMap& documents,
                              const SequenceOperatorParameters<T, Exec>& parameters) const {
    const Exec exec;
    const std::int64_t rows = documents.rows();
    const std::int64_t length = layout.length();
    const std::int64_t width = config.input_width();
    const std::int64_t inner = config.d_inner();
    const auto xBCdt = make_shard<T>(layout, rows, width, input ? input : normal_values(3, length, width));
    const auto y = poisoned_view<Array<T***>>(rows, layout.local_length(), inner);
    const Array<std::byte*> workspace("krait::test::workspace", op.workspace_bytes(context, layout, rows, false));
    const Array<std::byte*> saved("krait::test::saved", op.saved_bytes(context, layout, rows, saving));
    op.forward(exec, context, layout, documents, parameters,
               {.xBCdt = xBCdt, .y = y, .workspace = workspace, .saved = saved, .saving = saving});

    const std::int64_t room = overwrite_dy ? op.backward_room(context, layout, rows, saving) : 0;
    const auto gradient = make_shard<T>(layout, rows, inner, dy ? dy : normal_values(4, length, inner));
    const auto dy_tensor = with_room<T>(gradient, room);
    // A slice of a wider tensor, as the mixer has it.
    const auto dprojection = poisoned_view<Array<T***>>(rows, layout.local_length(), width + 3);
    const Tensor<T***, Exec> dxBCdt =
        Kokkos::subview(dprojection, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(std::int64_t{3}, width + 3));
    const OperatorGradients<T> gradients(parameters);
    const auto scratch = poisoned_view<Array<float*>>(
        (op.backward_workspace_bytes(context, layout, rows, saving, overwrite_dy) + 3) / 4);
    const auto other = make_sequence_operator<T>(strategy, config);
    SequenceOperator<T>& behind = with_another ? *other : op;
    behind.backward(exec, context, layout, documents, parameters, gradients.views,
                    {.xBCdt = xBCdt,
                     .dy = dy_tensor.tensor,
                     .dxBCdt = dxBCdt,
                     .saved = saved,
                     .saving = saving,
                     .workspace = make_tensor<std::byte*, Exec, 1>(reinterpret_cast<std::byte*>(scratch.data()),
                                                                   {4 * static_cast<std::int64_t>(scratch.size())}),
                     .room = room});
    exec.fence("krait::test: backward is done");
    if (room == 0) {
      EXPECT_TRUE(same(dy_tensor.tensor, gradient));
    }
    return {values_of(dxBCdt), gradients.sums(context)};
  }
};

}  // namespace krait::test
