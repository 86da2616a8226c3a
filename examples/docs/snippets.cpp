// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The code blocks of the documentation that are not part of a numbered example, compiled and run.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <vector>

#include <krait/krait.hpp>

namespace {

using Exec = Kokkos::DefaultExecutionSpace;

const krait::MambaConfig config{.d_model = 32, .head_dim = 16, .groups = 4, .d_state = 8};

void packed_documents(const Exec& exec, const krait::Communicator& world, krait::MambaMixer<float>& mixer) {
  const auto layout = krait::SequenceLayout::zigzag(world, /*length=*/1000);
  const Kokkos::View<float***> hidden("hidden", 1, layout.local_length(), config.d_model);
  const Kokkos::View<float***> out("out", 1, layout.local_length(), config.d_model);

  const auto documents = krait::DocumentMap::from_cu_seqlens({0, 100, 250, 1000}, layout.length());
  mixer.forward(exec, hidden, layout, documents, out);

  try {
    mixer.forward(exec, hidden, krait::SequenceLayout::zigzag(world, /*length=*/7), out);
  } catch (const krait::ShapeError& error) {
    if (world.rank() == 0) std::printf("%s\n", error.what());
  }

  if (world.rank() == 0) std::cout << world.counters();
}

void stack(const Exec& exec, const krait::Parallel& parallel) {
  const auto workspace = std::make_shared<krait::Workspace<Exec>>("workspace");
  std::vector<krait::MambaMixer<float>> layers;
  for (std::uint64_t layer = 0; layer < 2; ++layer) {
    layers.emplace_back(exec, config, parallel, workspace);
    layers.back().initialize(/*seed=*/layer);
  }
}

void train(const Exec& exec, const krait::Communicator& world, krait::MambaMixer<float>& mixer) {
  const auto layout = krait::SequenceLayout::zigzag(world, /*length=*/1000);
  const Kokkos::View<float***> hidden("hidden", 1, layout.local_length(), config.d_model);
  const Kokkos::View<float***> out("out", 1, layout.local_length(), config.d_model);
  const Kokkos::View<float***> dout("dout", 1, layout.local_length(), config.d_model);
  const Kokkos::View<float***> dhidden("dhidden", 1, layout.local_length(), config.d_model);
  Kokkos::deep_copy(exec, hidden, 0.5F);
  Kokkos::deep_copy(exec, dout, 1.0F);

  krait::MambaActivations<float> kept;
  const krait::MambaGradients<float> gradients(exec, config);
  mixer.forward(exec, hidden, layout, out, kept);
  // the loss, and its gradient dout
  mixer.backward(exec, hidden, layout, kept, dout, dhidden, gradients);
  krait::reduce_gradients(exec, world, gradients);
}

void choose_strategy(const Exec& exec, const krait::Communicator& world) {
  const krait::SequenceOperatorConfig shape{.heads = 128, .head_dim = 64, .groups = 8, .d_state = 128};
  const auto layout = krait::SequenceLayout::zigzag(world, /*length=*/32768);

  const krait::Planner planner(krait::calibrate(exec, world, shape));
  krait::Workload work;
  work.config = shape;
  work.sharding = krait::Sharding::of(layout);
  work.scalar_bytes = sizeof(krait::bfloat16);
  const krait::Choice choice = planner.choose(work);
  if (world.rank() == 0) std::cout << choice.explanation() << '\n';
}

void operator_in_place(const Exec& exec, const krait::Communicator& world) {
  const auto layout = krait::SequenceLayout::zigzag(world, /*length=*/1000);
  const auto documents = krait::DocumentMap::whole_rows(/*rows=*/1, layout.length());

  const krait::SequenceOperatorConfig shape{.heads = 4, .head_dim = 16, .groups = 4, .d_state = 8};
  const Kokkos::View<float**> conv_weight("conv_weight", shape.conv_channels(), shape.d_conv);
  const Kokkos::View<float*> A_log("A_log", shape.heads);
  krait::SequenceOperatorParameters<float> parameters;  // bias of convolution and steps, and D, are optional
  parameters.conv_weight = conv_weight;
  parameters.A_log = A_log;
  const Kokkos::View<float***, Kokkos::LayoutRight> xBCdt("xBCdt", 1, layout.local_length(), shape.input_width());
  const Kokkos::pair<std::int64_t, std::int64_t> columns_of_x(0, shape.d_inner());

  const auto op = krait::make_sequence_operator<float>(krait::Strategy::state_passing, shape);
  krait::SequenceOperatorArguments<float> arguments;
  arguments.xBCdt = xBCdt;
  arguments.y = Kokkos::subview(xBCdt, Kokkos::ALL, Kokkos::ALL, columns_of_x);
  arguments.room = op->room(world, layout, /*batch=*/1);
  const Kokkos::View<std::byte*> workspace(
      "workspace", op->workspace_bytes(world, layout, /*batch=*/1, arguments.overwrites_input()));
  arguments.workspace = workspace;
  op->forward(exec, world, layout, documents, parameters, arguments);
}

}  // namespace

int main(int argc, char** argv) {
  const krait::Environment environment(argc, argv);
  const Exec exec;
  const auto world = krait::Communicator::world(exec);
  const krait::Parallel parallel{.context = world, .divisibility = krait::Divisibility::uneven};
  krait::MambaMixer<float> mixer(exec, config, parallel);
  mixer.initialize(/*seed=*/42);
  packed_documents(exec, world, mixer);
  stack(exec, parallel);
  train(exec, world, mixer);
  choose_strategy(exec, world);
  operator_in_place(exec, world);
  if (world.rank() == 0) std::printf("krait: ok\n");
}
