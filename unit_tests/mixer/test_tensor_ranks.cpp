// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Heads and parameters split over tensor ranks, with and without a split sequence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/error.hpp>
#include <mixer/mixer_problem.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)
using testing::HasSubstr;
using testing::ThrowsMessage;

template <Scalar T>
void compare(const MambaConfig& config, int tensor_ranks, double tolerance) {
  const auto world = Communicator::world(Exec());
  if (world.size() % tensor_ranks != 0) return;
  // Neighbours share heads; ranks with the same tensor rank share the sequence.
  const Parallel parallel{.context = world.split(world.rank() % tensor_ranks, world.rank()),
                          .tensor = world.split(world.rank() / tensor_ranks, world.rank()),
                          .strategy = Strategy::automatic,
                          .divisibility = Divisibility::uneven};
  ASSERT_EQ(parallel.tensor.size(), tensor_ranks);
  MambaMixer<T> split(Exec(), config, parallel);
  MambaMixer<T> whole(Exec(), config);
  split.initialize(9);
  whole.initialize(9);
  const auto documents = DocumentMap::from_cu_seqlens({0, 30, 37}, 37);
  const auto layout = SequenceLayout::zigzag(parallel.context, 37);
  const auto want = reference_output(whole, documents);
  EXPECT_LE(relative_rms(run_mixer(split, parallel.context, layout, documents), shard_of_whole(want, layout)),
            tolerance)
      << tensor_ranks << " tensor ranks";
}

TEST(TensorRanks, EqualOneRank) {
  for (const int tensor_ranks : {2, 4}) {
    MambaConfig config = small_mixer(4);
    compare<double>(config, tensor_ranks, 1e-12);
    config.bias = true;  // counted once, not once per tensor rank
    compare<double>(config, tensor_ranks, 1e-12);
    compare<float>(config, tensor_ranks, 2.3e-5);
    compare<bfloat16>(config, tensor_ranks, 2e-2);
  }
}

// The others would wait for its part of the sum.
TEST(TensorRanks, OneRanksMistakeIsEverybodysError) {
  const auto world = Communicator::world(Exec());
  const int tensor_ranks = world.size() % 2 == 0 ? 2 : 1;
  const Parallel parallel{.context = world.split(world.rank() % tensor_ranks, world.rank()),
                          .tensor = world.split(world.rank() / tensor_ranks, world.rank()),
                          .strategy = Strategy::automatic,
                          .divisibility = Divisibility::uneven};
  MambaMixer<float> mixer(Exec(), small_mixer(4), parallel);
  mixer.initialize(9);
  const auto layout = SequenceLayout::zigzag(parallel.context, 37);
  const auto right = make_shard<float>(layout, 1, 24, normal_values(1, 37, 24));
  // In the context of one tensor rank, and in each of them.
  const bool mine = parallel.tensor.rank() == tensor_ranks - 1;
  const auto wrong = make_shard<float>(layout, 1, mine ? 23 : 24, normal_values(1, 37, 23));
  EXPECT_THAT([&] { mixer.forward(Exec(), wrong, layout, right); },
              ThrowsMessage<ShapeError>(HasSubstr("hidden is (1, ")));
  MambaActivations<float> kept;
  EXPECT_THAT([&] { mixer.forward(Exec(), wrong, layout, right, kept); },
              ThrowsMessage<ShapeError>(HasSubstr("hidden is (1, ")));
  EXPECT_FALSE(kept.filled());
  TrainingStep<float> step(mixer, layout, 1);
  mixer.forward(Exec(), step.hidden, layout, step.out, step.kept);
  EXPECT_THAT([&] { mixer.backward(Exec(), wrong, layout, step.kept, step.dout, step.dhidden, step.gradients); },
              ThrowsMessage<ShapeError>(HasSubstr("hidden is (1, ")));
  world.barrier();
}

/// Rows [begin, end) of a row-major matrix with `columns` columns, section by section: what tensor rank r of n has.
std::vector<double> share(const std::vector<double>& values, const std::vector<std::int64_t>& sections, int rank,
                          int ranks, std::int64_t columns) {
  std::vector<double> result;
  std::int64_t begin = 0;
  for (const std::int64_t section : sections) {
    const auto from = values.begin() + (begin + section / ranks * rank) * columns;
    result.insert(result.end(), from, from + section / ranks * columns);
    begin += section;
  }
  return result;
}

std::vector<double> transposed(const std::vector<double>& values, std::int64_t columns) {
  const auto width = static_cast<std::size_t>(columns);
  const std::size_t rows = values.size() / width;
  std::vector<double> result(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) result[i % width * rows + i / width] = values[i];
  return result;
}

/// Every tensor rank gets the gradient of hidden, of its own rows of the parameters, and of the whole output bias.
template <Scalar T>
void compare_gradients(const MambaConfig& config, int tensor_ranks, double tolerance) {
  const auto world = Communicator::world(Exec());
  if (world.size() % tensor_ranks != 0) return;
  const Parallel parallel{.context = world.split(world.rank() % tensor_ranks, world.rank()),
                          .tensor = world.split(world.rank() / tensor_ranks, world.rank()),
                          .strategy = Strategy::automatic,
                          .divisibility = Divisibility::uneven};
  MambaMixer<T> split(Exec(), config, parallel);
  MambaMixer<T> whole(Exec(), config);
  split.initialize(9);
  whole.initialize(9);
  const auto documents = DocumentMap::from_cu_seqlens({0, 30, 37}, 37);
  const auto layout = SequenceLayout::zigzag(parallel.context, 37);
  WholeGradients want = reference_gradients(whole, documents);
  const std::int64_t inner = config.d_inner();
  const std::int64_t states = config.groups * config.d_state;
  const std::int64_t heads = config.head_count();
  for (auto& [name, values] : want.parameters) {
    const auto mine = [&, &values = values](const std::vector<std::int64_t>& sections, std::int64_t columns) {
      return share(values, sections, parallel.tensor.rank(), tensor_ranks, columns);
    };
    if (name == "in_proj_weight") values = mine({inner, inner, states, states, heads}, config.d_model);
    if (name == "in_proj_bias") values = mine({inner, inner, states, states, heads}, 1);
    if (name == "conv_weight") values = mine({inner, states, states}, config.d_conv);
    if (name == "conv_bias") values = mine({inner, states, states}, 1);
    if (name == "dt_bias" || name == "A_log" || name == "D") values = mine({heads}, 1);
    if (name == "norm_weight") values = mine({inner}, 1);
    if (name == "out_proj_weight") {
      values = transposed(values, inner);
      values = transposed(mine({inner}, config.d_model), config.d_model);
    }
  }
  want.expect(train_step(split, parallel.context, layout, documents), layout, tolerance,
              std::to_string(tensor_ranks) + " tensor ranks");
}

TEST(TensorRanks, GradientsEqualOneRank) {
  for (const int tensor_ranks : {2, 4}) {
    MambaConfig config = small_mixer(4);
    compare_gradients<double>(config, tensor_ranks, 1e-12);
    config.bias = true;
    compare_gradients<double>(config, tensor_ranks, 1e-12);
    compare_gradients<float>(config, tensor_ranks, 2e-4);
  }
}

}  // namespace
