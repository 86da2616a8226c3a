// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <mpi.h>

#include <krait/layout/head_partition.hpp>
#include <krait/layout/redistribution.hpp>

#include "harness.hpp"
#include "ranks.hpp"

namespace krait::perf {
namespace {

/// The most that a rank has.
std::int64_t most(std::int64_t mine) {
  MPI_Allreduce(MPI_IN_PLACE, &mine, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
  return mine;
}

/// The bytes of one exchange without any of its work: the shard is copied once, as a whole, and an all-to-all moves as
/// many bytes between buffers, from every rank as many as from the one that sends most.
template <class T>
struct PlainExchange {
  Kokkos::View<T*> shard, copy, sent, received;
  int bytes_per_rank;

  PlainExchange(std::int64_t shard_elements, std::int64_t buffer_elements, int ranks)
      : shard(data<Kokkos::View<T*>>(-1, 1, shard_elements)),
        copy(data<Kokkos::View<T*>>(-1, 1, shard_elements)),
        sent(data<Kokkos::View<T*>>(-1, 1, most(buffer_elements))),
        received(data<Kokkos::View<T*>>(-1, 1, std::int64_t(sent.size()))),
        bytes_per_rank(static_cast<int>(sent.size() / static_cast<std::size_t>(ranks) * sizeof(T))) {}

  void operator()(const Exec& exec) const {
    perf::copy(exec, copy, shard);
    exec.fence("krait::perf: copy is done");
    MPI_Alltoall(sent.data(), bytes_per_rank, MPI_BYTE, received.data(), bytes_per_rank, MPI_BYTE, MPI_COMM_WORLD);
  }
};

/// x, B, C and dt of a rank's tokens become those of its heads in all tokens (`enters`), or y comes back.
template <bool enters, bool zigzag>
struct Exchange {
  template <class T>
  static void run(benchmark::State& state, const Communicator& world, const LayerShape& s, std::int64_t length) {
    const HeadPartition partition(world, {s.H, s.P, s.G, s.N}, Divisibility::uneven);
    const SequenceLayout layout =
        zigzag ? SequenceLayout::zigzag(world, length) : SequenceLayout::contiguous(world, length);
    const Redistribution<T> plan(layout, enters ? partition.projection_sections(false) : partition.inner_sections(), 1);
    const auto shard = data<Kokkos::View<T***, Kokkos::LayoutRight>>(-1, 1, 1, layout.local_length(), plan.width());
    const auto sequence_buffer = data<Kokkos::View<T*>>(0, 1, plan.sequence_buffer_size());
    const auto heads_buffer = data<Kokkos::View<T*>>(0, 1, plan.heads_buffer_size());
    const PlainExchange<T> plain(std::int64_t(shard.size()), plan.sequence_buffer_size(), world.size());
    // Every element is read here and written there.
    const double bytes = 2.0 * sizeof(T) * static_cast<double>(length * plan.width());
    const Times times = perf::run(
        state, {static_cast<double>(length), bytes, 0, false},
        [&](const Exec& exec) {
          if constexpr (enters) {
            plan.enter(exec, world, shard, sequence_buffer, heads_buffer).request.wait();
          } else {
            plan.send_to_sequence(exec, world, heads_buffer, sequence_buffer).wait();
            plan.unpack(exec, sequence_buffer, shard);
          }
        },
        plain);
    state.counters["over_alltoall"] = times.own / times.beside;
    state.counters["mebibytes_per_rank"] = static_cast<double>(plan.sequence_buffer_size()) * sizeof(T) / (1 << 20);
  }
};

template <class Body>
void add_exchanges(const std::string& name, const Communicator& world) {
  for (const LayerShape& shape : shapes) {
    for (const std::int64_t length : lengths) {
      add(name, shape, scalar_name<float>(), length,
          [=](benchmark::State& state) { Body::template run<float>(state, world, shape, length); });
      add(name, shape, scalar_name<bfloat16>(), length,
          [=](benchmark::State& state) { Body::template run<bfloat16>(state, world, shape, length); });
    }
  }
}

}  // namespace

/// Where MPI cannot read the memory of the operators there is nothing to compare with.
void register_redistribution(const Communicator& world) {
  if (!Kokkos::SpaceAccessibility<Kokkos::HostSpace, Exec::memory_space>::accessible && !world.gpu_aware_mpi()) return;
  add_exchanges<Exchange<true, false>>("redistribution/enter", world);
  add_exchanges<Exchange<false, false>>("redistribution/leave", world);
  add_exchanges<Exchange<true, true>>("redistribution/enter_zigzag", world);
  add_exchanges<Exchange<false, true>>("redistribution/leave_zigzag", world);
}

}  // namespace krait::perf
