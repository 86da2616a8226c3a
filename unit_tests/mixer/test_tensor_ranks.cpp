// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Heads and parameters split over tensor ranks, with and without a split sequence.
#include <gtest/gtest.h>

#include <mixer/mixer_problem.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)

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

}  // namespace
