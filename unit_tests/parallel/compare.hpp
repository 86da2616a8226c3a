// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Every strategy against one rank, in every layout, packed or not.

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

template <Scalar T>
struct Call {
  SequenceOperatorConfig config;
  Strategy strategy;
  bool overwrite_input = false;

  /// Runs a new operator on this rank's shard; returns its y.
  [[nodiscard]] std::vector<double> run(const Communicator& context, const SequenceLayout& layout,
                                        const DocumentMap& documents, const OperatorParameters<T>& parameters) const {
    const auto op = make_sequence_operator<T>(strategy, config);
    return run(*op, context, layout, documents, parameters);
  }

  [[nodiscard]] std::vector<double> run(SequenceOperator<T>& op, const Communicator& context,
                                        const SequenceLayout& layout, const DocumentMap& documents,
                                        const OperatorParameters<T>& parameters) const {
    const Exec exec;
    const std::int64_t rows = documents.rows();
    const OperatorRoom room = overwrite_input ? op.room(context, layout, rows) : OperatorRoom();
    const auto input = with_room<T>(
        make_shard<T>(layout, rows, config.input_width(), normal_values(3, layout.length(), config.input_width())),
        room.xBCdt);
    const auto apart = with_room<T>(poisoned_view<Array<T***>>(rows, layout.local_length(), config.d_inner()), room.y);
    const auto y = room.y_over_x ? krait::impl::columns(input.tensor, 0, config.d_inner()) : apart.tensor;
    const Array<std::byte*> workspace("krait::test::workspace",
                                      op.workspace_bytes(context, layout, rows, overwrite_input));
    op.forward(exec, context, layout, documents, parameters.views(),
               {.xBCdt = input.tensor, .y = y, .workspace = workspace, .room = room});
    exec.fence("krait::test: forward is done");
    return values_of(y);
  }
};

/// Compares this rank's part of a split run with the one-rank run that it makes by itself.
template <Scalar T>
void compare_with_one_rank(Strategy strategy, const SequenceOperatorConfig& config, std::int64_t rows,
                           std::int64_t length, const std::vector<std::int64_t>& cu, Decay decay) {
  const auto world = Communicator::world(Exec());
  const OperatorParameters<T> parameters(config, decay);
  for (const bool with_documents : {false, true}) {
    const auto documents = with_documents ? packed(rows, cu) : DocumentMap::whole_rows(rows, length);
    const auto alone = SequenceLayout::contiguous(Place{}, length);
    const auto whole_values = Call<T>{config, Strategy::local}.run(Communicator::self(), alone, documents, parameters);
    const Array<double***> whole("krait::test::whole", static_cast<std::size_t>(rows), static_cast<std::size_t>(length),
                                 static_cast<std::size_t>(config.d_inner()));
    std::copy(whole_values.begin(), whole_values.end(), whole.data());
    for (const auto& layout : all_layouts(world.place(), length, cu)) {
      if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !with_documents) continue;
      for (const bool overwrite : {false, true}) {
        const auto shard = Call<T>{config, strategy, overwrite}.run(world, layout, documents, parameters);
        EXPECT_LE(relative_rms(shard, shard_of_whole(whole, layout)), split_tolerance<T>())
            << name_of(strategy) << ", " << layout.description() << ", rows " << rows << ", groups " << config.groups
            << ", packed " << with_documents << ", overwrite " << overwrite << ", rank " << world.rank();
      }
    }
  }
}

/// The gradients of one rank, as Local has them; made by every rank.
template <Scalar T>
class OneRank {
 public:
  OneRank(const SequenceOperatorConfig& config, const DocumentMap& documents, const OperatorParameters<T>& parameters)
      : gradients_(BackwardCall<T>{config, Strategy::local}.run(Communicator::self(),
                                                                SequenceLayout::contiguous(Place{}, documents.length()),
                                                                documents, parameters.views())),
        whole_("krait::test::whole", static_cast<std::size_t>(documents.rows()),
               static_cast<std::size_t>(documents.length()), static_cast<std::size_t>(config.input_width())) {
    std::copy(gradients_.dxBCdt.begin(), gradients_.dxBCdt.end(), whole_.data());
  }

  void expect(const Gradients& got, const SequenceLayout& layout, const std::string& what) const {
    EXPECT_LE(relative_rms(got.dxBCdt, shard_of_whole(whole_, layout)), split_tolerance<T>())
        << layout.description() << ", " << what;
    EXPECT_TRUE(gradients_close(got.parameters, gradients_.parameters, split_tolerance<T>()))
        << layout.description() << ", " << what;
  }

 private:
  Gradients gradients_;
  Array<double***> whole_;
};

/// Compares this rank's part of a split run with the one-rank run that it makes by itself. What was saved must not
/// change a bit.
template <Scalar T>
void compare_backward_with_one_rank(Strategy strategy, const SequenceOperatorConfig& config, std::int64_t rows,
                                    std::int64_t length, const std::vector<std::int64_t>& cu, Decay decay) {
  const auto world = Communicator::world(Exec());
  const OperatorParameters<T> parameters(config, decay);
  int number = 0;
  for (const bool with_documents : {false, true}) {
    const auto documents = with_documents ? packed(rows, cu) : DocumentMap::whole_rows(rows, length);
    const OneRank<T> one_rank(config, documents, parameters);
    for (const auto& layout : all_layouts(world.place(), length, cu)) {
      if (layout.kind() == SequenceLayout::Kind::zigzag_docs && !with_documents) continue;
      const bool overwrite = number++ % 2 == 0;
      const auto lean =
          BackwardCall<T>{config, strategy, Saving::lean, overwrite}.run(world, layout, documents, parameters.views());
      one_rank.expect(lean, layout,
                      std::string(name_of(strategy)) + ", rows " + std::to_string(rows) + ", groups " +
                          std::to_string(config.groups) + ", packed " + std::to_string(with_documents) +
                          ", overwrite " + std::to_string(overwrite));
      const auto full =
          BackwardCall<T>{config, strategy, Saving::full, !overwrite}.run(world, layout, documents, parameters.views());
      EXPECT_TRUE(full == lean) << layout.description();
    }
  }
}

}  // namespace krait::test
