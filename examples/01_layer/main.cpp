// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One Mamba-2 layer over a sequence that all ranks share. Prints the same checksum on any number of ranks.
#include <cstdio>

#include <krait/krait.hpp>

#include "fill_and_sum.hpp"

int main(int argc, char** argv) {
  const krait::Environment environment(argc, argv);  // MPI and Kokkos, for the length of main
  const Kokkos::DefaultExecutionSpace exec;
  const auto world = krait::Communicator::world(exec);

  const krait::MambaConfig config{.d_model = 64, .head_dim = 16, .groups = 8, .d_state = 16};
  const krait::Parallel parallel{.context = world, .divisibility = krait::Divisibility::uneven};
  krait::MambaMixer<float> mixer(exec, config, parallel);
  mixer.initialize(/*seed=*/42);

  const auto layout = krait::SequenceLayout::zigzag(world, /*length=*/1 << 16);
  const Kokkos::View<float***> hidden("hidden", 1, layout.local_length(), config.d_model);
  const Kokkos::View<float***> out("out", 1, layout.local_length(), config.d_model);
  fill(exec, layout, hidden);

  mixer.forward(exec, hidden, layout, out);

  const double sum = sum_over_ranks(exec, world, out);
  if (world.rank() == 0) {
    std::printf("krait: ok, %lld tokens x %lld on %d ranks, sum of squares %.6g\n",
                static_cast<long long>(layout.length()), static_cast<long long>(config.d_model), world.size(), sum);
  }
}
