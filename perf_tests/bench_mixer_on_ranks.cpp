// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <mpi.h>

#include <chrono>
#include <memory>
#include <thread>

#include "mixer_layer.hpp"
#include "ranks.hpp"

namespace krait::perf {
namespace {

/// A barrier whose waiting ranks leave the cores alone.
void sleep_until_all_are_here() {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

/// A layer over all ranks beside the same layer on rank 0 alone: counter `speedup`.
template <bool training>
struct MixerOnRanks {
  template <class T>
  static void run(benchmark::State& state, const Communicator& world, const LayerShape& s, std::int64_t length) {
    Layer<T> shared(s, SequenceLayout::contiguous(world, length),
                    {.context = world, .divisibility = Divisibility::uneven});
    shared.allocate(training);
    std::unique_ptr<Layer<T>> alone;
    if (world.rank() == 0) {
      alone = std::make_unique<Layer<T>>(s, SequenceLayout::contiguous(Place{}, length));
      alone->allocate(training);
    }
    const auto step = [](const Exec& exec, Layer<T>& layer) {
      if constexpr (training) {
        layer.training_forward(exec);
        layer.backward(exec);
      } else {
        layer.forward(exec);
      }
    };
    const Cost cost = training ? shared.cost(6, 14, 5) : shared.cost(2, 4, 2);
    const Times times = perf::run(
        state, cost, [&](const Exec& exec) { step(exec, shared); },
        [&](const Exec& exec) {
          if (alone) {
            step(exec, *alone);
            exec.fence("krait::perf: alone");
          }
          sleep_until_all_are_here();
        });
    state.counters["speedup"] = times.beside / times.own;
  }
};

}  // namespace

void register_mixer_on_ranks(const Communicator& world) {
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t length : lengths) {
      add("mamba_mixer/forward", shape, scalar_name<float>(), length,
          [=](benchmark::State& state) { MixerOnRanks<false>::run<float>(state, world, shape, length); });
      add("mamba_mixer/forward_backward", shape, scalar_name<float>(), length,
          [=](benchmark::State& state) { MixerOnRanks<true>::run<float>(state, world, shape, length); });
    }
  }
}

}  // namespace krait::perf
