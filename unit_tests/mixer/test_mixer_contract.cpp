// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a steady state may not do, and what memory it takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <krait/core/memory_meter.hpp>
#include <mixer/mixer_problem.hpp>
#include <support/callback_recorder.hpp>

namespace {

using namespace krait;        // NOLINT(google-build-using-namespace)
using namespace krait::test;  // NOLINT(google-build-using-namespace)

TEST(MixerContract, NothingIsAllocatedAfterTheFirstCall) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(4), on(world));
  mixer.initialize(1);
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto hidden = make_shard<float>(layout, 2, 24, normal_values(2, 50, 24));
  const auto out = poisoned_view<Array<float***>>(2, layout.local_length(), 24);
  mixer.forward(exec, hidden, layout, out);
  exec.fence("krait::test: warm");
  const MemoryMeter meter;
  for (int repeat = 0; repeat < 3; ++repeat) mixer.forward(exec, hidden, layout, out);
  exec.fence("krait::test: done");
  EXPECT_EQ(meter.allocations(), 0U);
}

TEST(MixerContract, EverythingRunsOnTheCallersInstanceUnderOurName) {
  const auto world = Communicator::world(Exec());
  const auto exec = Kokkos::Experimental::partition_space(Exec(), 1)[0];
  MambaMixer<float> mixer(exec, small_mixer(4), on(world));
  mixer.initialize(1);
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto hidden = make_shard<float>(layout, 2, 24, normal_values(2, 50, 24));
  const auto out = poisoned_view<Array<float***>>(2, layout.local_length(), 24);
  mixer.forward(exec, hidden, layout, out);
  exec.fence("krait::test: warm");

  const CallbackRecorder recorder;
  mixer.forward(exec, hidden, layout, out);
  // Where Kokkos Kernels makes the three projections, they are regions of its own and no kernels of Kokkos.
  EXPECT_THAT(recorder.foreign_labels(), testing::Each(testing::StartsWith("KokkosBlas::")));
  EXPECT_GE(recorder.kernels().size() + recorder.foreign_labels().size(), 8U);
  for (const auto& kernel : recorder.kernels())
    EXPECT_EQ(kernel.device, Kokkos::Tools::Experimental::device_id(exec)) << kernel.label;
  // Only a message may wait for the instance. (Kokkos itself fences around tool callbacks.)
  for (const auto& fence : recorder.fences())
    EXPECT_TRUE(fence.label.starts_with("Kokkos::Tools") ||
                (world.size() > 1 && fence.label.starts_with("krait::comm")))
        << fence.label;
}

TEST(MixerContract, TwoCollectivesPerLayer) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(4), on(world));
  mixer.initialize(1);
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto hidden = make_shard<float>(layout, 2, 24, normal_values(2, 50, 24));
  const auto out = poisoned_view<Array<float***>>(2, layout.local_length(), 24);
  mixer.forward(exec, hidden, layout, out);
  auto context = world;
  context.reset_counters();
  mixer.forward(exec, hidden, layout, out);
  EXPECT_EQ(world.counters().total().calls, world.size() == 1 ? 0 : 2);
}

TEST(MixerContract, LayersShareIndexMapsAndWorkspace) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  const auto shared = std::make_shared<Workspace<Exec>>("krait::test::shared");
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto hidden = make_shard<float>(layout, 1, 24, normal_values(2, 50, 24));
  const auto out = poisoned_view<Array<float***>>(1, layout.local_length(), 24);
  std::vector<std::unique_ptr<MambaMixer<float>>> stack;
  for (std::uint64_t layer = 0; layer < 3; ++layer) {
    stack.push_back(std::make_unique<MambaMixer<float>>(exec, small_mixer(4), on(world), shared));
    stack.back()->initialize(layer);
    stack.back()->forward(exec, hidden, layout, out);
  }
  EXPECT_LE(layout.map_builds(), 1U);
  EXPECT_EQ(shared->bytes(), stack[0]->workspace_bytes(layout, 1));
}

// Each rank's workspace is its share of one rank's, at any length, and the dt columns of the buffer that is sent.
TEST(MixerContract, WorkspaceIsTheRanksShare) {
  const auto world = Communicator::world(Exec());
  MambaConfig config = small_mixer(8);
  if (8 % world.size() != 0) return;
  const MambaMixer<float> split(Exec(), config, on(world));
  const MambaMixer<float> alone(Exec(), config);
  for (const std::int64_t length : {4096, 65536}) {
    const auto bytes = split.workspace_bytes(SequenceLayout::zigzag(world, length), 1);
    const auto one = alone.workspace_bytes(SequenceLayout::contiguous(Place{}, length), 1);
    const auto dt = static_cast<std::size_t>(length * config.head_count()) * sizeof(float);
    EXPECT_LE(bytes, (one + dt) / static_cast<std::size_t>(world.size()) + 4096);
  }
}

}  // namespace
