// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run.hpp"

#include <algorithm>
#include <chrono>
#include <krait/comm/point_to_point.hpp>

#include "embedding.hpp"

namespace genome {
namespace {

using Host = Kokkos::DefaultHostExecutionSpace;
using krait::CommOperation;

Hidden embed(const Exec& exec, const krait::SequenceLayout& layout, const Sequence& sequence,
             const Embedding& embedding) {
  const Hidden stream(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait_genome::stream"), 1,
                      layout.local_length(), embedding.width());
  const auto host = Kokkos::create_mirror_view(stream);
  for (std::int64_t i = 0; i < layout.local_length(); ++i) {
    const Base base = sequence.at(layout.global_of_local(i));
    for (std::int64_t feature = 0; feature < embedding.width(); ++feature)
      host(0, i, feature) = embedding(base, feature);
  }
  Kokkos::deep_copy(exec, stream, host);
  exec.fence("krait_genome: tokens are embedded");
  return stream;
}

std::vector<float> on_host(const Hidden& stream) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), stream);
  return {host.data(), host.data() + host.size()};
}

}  // namespace

Run run_stack(const Exec& exec, const krait::Communicator& context, krait::Strategy strategy,
              const krait::SequenceLayout& layout, const Options& options, const Sequence& sequence,
              krait::MemoryMeter& meter, Progress& progress) {
  MixerStack stack(exec, options, context, strategy);
  const Embedding embedding(options.d_model, options.seed);
  const std::size_t parameters = meter.live_bytes();
  meter.reset_peak();
  const krait::CommCounters before = context.counters();
  const Hidden stream = embed(exec, layout, sequence, embedding);
  context.barrier();

  const auto start = std::chrono::steady_clock::now();
  stack.forward(exec, layout, stream, progress);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;

  const krait::CommCounters after = context.counters();
  const auto calls = [&](CommOperation operation) { return after[operation].calls - before[operation].calls; };
  Run result;
  result.seconds = elapsed.count();
  result.exchanges = calls(CommOperation::all_to_all) + calls(CommOperation::all_to_all_v) +
                     calls(CommOperation::all_gather_v) + calls(CommOperation::exclusive_scan);
  result.bytes_sent = after.total().bytes_sent - before.total().bytes_sent;
  result.peak_bytes = meter.peak_bytes() - parameters;
  result.stream = on_host(stream);
  return result;
}

std::vector<float> gather_in_order(const krait::Communicator& world, const krait::SequenceLayout& layout,
                                   const std::vector<float>& local, std::int64_t width) {
  using Message = Kokkos::View<float*, Kokkos::HostSpace>;
  const auto message = [&](int rank) {
    return Message(Kokkos::view_alloc(Kokkos::WithoutInitializing, "krait_genome::shard"),
                   static_cast<std::size_t>(layout.local_length(rank) * width));
  };
  if (world.rank() != 0) {
    const Message mine = message(world.rank());
    std::copy(local.begin(), local.end(), mine.data());
    krait::comm::send(Host(), world, mine, 0).wait();
    return {};
  }

  std::vector<float> result(static_cast<std::size_t>(layout.length() * width));
  const auto place = [&](int rank, const float* shard) {
    for (const krait::Stretch& stretch : layout.stretches(rank)) {
      std::copy_n(shard + stretch.local * width, stretch.count * width, result.begin() + stretch.token * width);
    }
  };
  place(0, local.data());
  for (int rank = 1; rank < world.size(); ++rank) {
    const Message theirs = message(rank);
    krait::comm::recv(Host(), world, theirs, rank).wait();
    place(rank, theirs.data());
  }
  return result;
}

}  // namespace genome
