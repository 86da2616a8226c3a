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

void expect_no_allocation(Strategy strategy) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(4), on(world, strategy));
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

TEST(MixerContract, NothingIsAllocatedAfterTheFirstCall) {
  for (const Strategy strategy : shared_strategies) expect_no_allocation(strategy);
}

void expect_own_kernels_on_the_instance(Strategy strategy) {
  const auto world = Communicator::world(Exec());
  const auto exec = Kokkos::Experimental::partition_space(Exec(), 1)[0];
  MambaMixer<float> mixer(exec, small_mixer(4), on(world, strategy));
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

TEST(MixerContract, EverythingRunsOnTheCallersInstanceUnderOurName) {
  for (const Strategy strategy : shared_strategies) expect_own_kernels_on_the_instance(strategy);
}

TEST(MixerContract, TwoCollectivesPerLayer) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  MambaMixer<float> mixer(exec, small_mixer(4), on_heads(world));
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

/// A stack that trains: activations of all layers are kept, then the backward goes through them.
class Stack {
 public:
  Stack(const MambaConfig& config, const Parallel& parallel, int layers) : parallel_(parallel) {
    const auto shared = std::make_shared<Workspace<Exec>>("krait::test::shared");
    for (int layer = 0; layer < layers; ++layer) {
      mixers_.push_back(std::make_unique<MambaMixer<float>>(Exec(), config, parallel, shared));
      mixers_.back()->initialize(static_cast<std::uint64_t>(layer));
      gradients_.emplace_back(Exec(), config);
    }
    kept_.resize(mixers_.size());
  }

  /// Hidden states between the layers: (layers + 1) tensors.
  void train(const Exec& exec, const std::vector<Array<float***>>& hidden, const SequenceLayout& layout,
             const DocumentMap& documents, const Array<float***>& gradient) {
    for (std::size_t i = 0; i < mixers_.size(); ++i)
      mixers_[i]->forward(exec, hidden[i], layout, documents, hidden[i + 1], kept_[i]);
    for (std::size_t i = mixers_.size(); i-- > 0;)
      mixers_[i]->backward(exec, hidden[i], layout, documents, kept_[i], gradient, gradient, gradients_[i]);
    for (const auto& gradients : gradients_) reduce_gradients(exec, parallel_.context, gradients);
  }

  [[nodiscard]] MambaMixer<float>& mixer(std::size_t i) { return *mixers_[i]; }
  [[nodiscard]] const MambaActivations<float>& kept(std::size_t i) const { return kept_[i]; }

 private:
  Parallel parallel_;
  std::vector<std::unique_ptr<MambaMixer<float>>> mixers_;
  std::vector<MambaGradients<float>> gradients_;
  std::vector<MambaActivations<float>> kept_;
};

/// Its hidden states, of which the first and the gradient of the last are given.
std::vector<Array<float***>> hidden_states(const SequenceLayout& layout, std::int64_t rows, std::int64_t width,
                                           int layers) {
  std::vector<Array<float***>> result = {
      make_shard<float>(layout, rows, width, normal_values(2, layout.length(), width))};
  for (int layer = 0; layer < layers; ++layer)
    result.emplace_back("krait::test::hidden", static_cast<std::size_t>(rows),
                        static_cast<std::size_t>(layout.local_length()), static_cast<std::size_t>(width));
  return result;
}

TEST(TrainingContract, NothingIsAllocatedAfterTheFirstStep) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  for (const bool lean : {true, false}) {
    MambaConfig config = small_mixer(4);
    config.use_mem_eff_path = lean;
    Stack stack(config, on(world), 2);
    const auto layout = SequenceLayout::zigzag(world, 50);
    const auto documents = DocumentMap::from_cu_seqlens_per_row({{0, 50}, {0, 20, 50}}, 50);
    const auto hidden = hidden_states(layout, 2, 24, 2);
    const auto gradient = make_shard<float>(layout, 2, 24, normal_values(3, 50, 24));
    stack.train(exec, hidden, layout, documents, gradient);
    exec.fence("krait::test: warm");
    const MemoryMeter meter;
    for (int repeat = 0; repeat < 3; ++repeat) stack.train(exec, hidden, layout, documents, gradient);
    exec.fence("krait::test: done");
    EXPECT_EQ(meter.allocations(), 0U);
  }
}

TEST(TrainingContract, EverythingRunsOnTheCallersInstanceUnderOurName) {
  const auto world = Communicator::world(Exec());
  const auto exec = Kokkos::Experimental::partition_space(Exec(), 1)[0];
  Stack stack(small_mixer(4), on(world), 1);
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto documents = DocumentMap::whole_rows(2, 50);
  const auto hidden = hidden_states(layout, 2, 24, 1);
  const auto gradient = make_shard<float>(layout, 2, 24, normal_values(3, 50, 24));
  stack.train(exec, hidden, layout, documents, gradient);
  exec.fence("krait::test: warm");

  const CallbackRecorder recorder;
  stack.train(exec, hidden, layout, documents, gradient);
  EXPECT_THAT(recorder.foreign_labels(), testing::Each(testing::StartsWith("KokkosBlas::")));
  EXPECT_GE(recorder.kernels().size() + recorder.foreign_labels().size(), 16U);
  for (const auto& kernel : recorder.kernels())
    EXPECT_EQ(kernel.device, Kokkos::Tools::Experimental::device_id(exec)) << kernel.label;
  for (const auto& fence : recorder.fences())
    EXPECT_TRUE(fence.label.starts_with("Kokkos::Tools") ||
                (world.size() > 1 && fence.label.starts_with("krait::comm")))
        << fence.label;
}

// Forward and backward have one collective each way, whatever is saved; the gradients of a layer take one more.
TEST(TrainingContract, TwoCollectivesEachWayPerLayer) {
  const auto world = Communicator::world(Exec());
  const Exec exec;
  for (const bool lean : {true, false}) {
    MambaConfig config = small_mixer(4);
    config.use_mem_eff_path = lean;
    Stack stack(config, on_heads(world), 2);
    const auto layout = SequenceLayout::zigzag(world, 50);
    const auto documents = DocumentMap::whole_rows(2, 50);
    const auto hidden = hidden_states(layout, 2, 24, 2);
    const auto gradient = make_shard<float>(layout, 2, 24, normal_values(3, 50, 24));
    stack.train(exec, hidden, layout, documents, gradient);
    auto context = world;
    context.reset_counters();
    stack.train(exec, hidden, layout, documents, gradient);
    const auto counters = world.counters();
    const int layers = world.size() == 1 ? 0 : 2;
    EXPECT_EQ(counters[CommOperation::all_to_all_v].calls, layers * 4);
    EXPECT_EQ(counters[CommOperation::all_reduce].calls, layers * 1);
    EXPECT_EQ(counters.total().calls, layers * 5);
  }
}

TEST(TrainingContract, KeepsWhatTheFormulaSays) {
  const auto world = Communicator::world(Exec());
  const auto layout = SequenceLayout::zigzag(world, 50);
  const auto documents = DocumentMap::whole_rows(2, 50);
  const auto hidden = hidden_states(layout, 2, 24, 1);
  const auto gradient = make_shard<float>(layout, 2, 24, normal_values(3, 50, 24));
  const auto padded = [](std::int64_t bytes) { return static_cast<std::size_t>((bytes + 127) / 128 * 128); };
  for (const bool rmsnorm : {true, false}) {
    MambaConfig config = small_mixer(4);
    config.rmsnorm = rmsnorm;
    Stack lean(config, on_heads(world), 1);
    lean.train(Exec(), hidden, layout, documents, gradient);
    const std::int64_t tokens = 2 * layout.local_length();
    const std::int64_t projection = 2 * config.d_inner() + 2 * config.groups * config.d_state + config.head_count();
    const std::size_t bytes = padded(4 * tokens * projection) + padded(4 * tokens * config.d_inner()) +
                              padded(rmsnorm ? 4 * tokens * config.groups : 0);
    EXPECT_EQ(lean.kept(0).bytes(), bytes);
    EXPECT_EQ(lean.mixer(0).saved_bytes(layout, 2), bytes);

    // With everything saved: x, B, C and dt of all tokens and this rank's heads, before the convolution and, without
    // dt, after it. One rank has the first of them in the projection.
    config.use_mem_eff_path = false;
    Stack full(config, on_heads(world), 1);
    full.train(Exec(), hidden, layout, documents, gradient);
    const HeadPartition heads = full.mixer(0).partition(world);
    const std::int64_t arrived = 4 * 2 * 50 * heads.projection_width_local(world.rank(), false);
    const std::size_t more = padded(world.size() == 1 ? 0 : arrived) + padded(4 * 2 * 50 * heads.conv_channels_local());
    EXPECT_EQ(full.kept(0).bytes(), bytes + more);
    EXPECT_EQ(full.mixer(0).saved_bytes(layout, 2), bytes + more);
  }
}

// What a training step takes, forwards and backwards through a stack, grows with the length as the rank's share of what
// one rank takes, and at most a fifth more.
TEST(TrainingContract, MemoryIsTheRanksShare) {
  const auto world = Communicator::world(Exec());
  if (8 % world.size() != 0) return;
  const auto peak = [](const Communicator& context, const SequenceLayout& layout) {
    const Exec exec;
    constexpr std::int64_t width = 64;
    constexpr int layers = 3;
    const MambaConfig config{.d_model = width, .head_dim = 16, .groups = 8, .d_state = 16, .chunk_size = 64};
    const MemoryMeter meter;
    Stack stack(config, on(context), layers);
    const auto hidden = hidden_states(layout, 1, width, layers);
    const auto gradient = make_shard<float>(layout, 1, width, normal_values(3, layout.length(), width));
    stack.train(exec, hidden, layout, DocumentMap::whole_rows(1, layout.length()), gradient);
    exec.fence("krait::test: trained");
    return static_cast<double>(meter.peak_bytes());
  };
  double split[2];
  double one[2];
  for (const int i : {0, 1}) {
    const std::int64_t length = 768 << i;
    split[i] = peak(world, SequenceLayout::zigzag(world, length));
    one[i] = peak(Communicator::self(), SequenceLayout::contiguous(Place{}, length));
  }
  const double share = (split[1] - split[0]) / (one[1] - one[0]);
  RecordProperty("share", std::to_string(share));
  EXPECT_LE(share, 1.2 / world.size()) << split[0] << " and " << split[1] << " bytes of " << one[0] << " and "
                                       << one[1];
}

}  // namespace
