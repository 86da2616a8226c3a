// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/local.hpp>

#include <string>

#include <krait/core/instantiate.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {
namespace {

void require_one_rank(const std::string& function, const Communicator& context) {
  KRAIT_REQUIRE(ConfigError, context.size() == 1, function, ": the communicator has ", context.size(),
                " ranks, expected 1");
}

}  // namespace

/// Where the parts of a backward's workspace lie, in bytes.
template <Scalar T, class Exec>
struct Local<T, Exec>::BackwardBlocks {
  std::size_t conv_out = 0;  // unless the forward saved it
  std::size_t dconv_out = 0;
  std::size_t scratch = 0;
  std::size_t scratch_bytes = 0;
  std::size_t bytes = 0;
};

template <Scalar T, class Exec>
HeadPartition Local<T, Exec>::partition() const {
  return {Place{}, {config_.heads, config_.head_dim, config_.groups, config_.d_state}, config_.divisibility};
}

template <Scalar T, class Exec>
std::int64_t Local<T, Exec>::conv_elements(const SequenceLayout& layout, std::int64_t batch) const {
  return batch * layout.length() * config_.conv_channels();
}

template <Scalar T, class Exec>
impl::ConvScan<T, Exec>& Local<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) {
  if (!slot_.holds(layout, batch))
    slot_.set(layout, batch,
              std::make_unique<impl::ConvScan<T, Exec>>(exec, config_, partition(), batch, layout.length()));
  return slot_.plan();
}

template <Scalar T, class Exec>
OperatorRoom Local<T, Exec>::room(const Communicator&, const SequenceLayout&, std::int64_t) const {
  return {};
}

template <Scalar T, class Exec>
std::size_t Local<T, Exec>::workspace_bytes(const Communicator&, const SequenceLayout& layout, std::int64_t batch,
                                            bool) const {
  return static_cast<std::size_t>(conv_elements(layout, batch)) * sizeof(T);
}

template <Scalar T, class Exec>
std::size_t Local<T, Exec>::saved_bytes(const Communicator&, const SequenceLayout& layout, std::int64_t batch,
                                        Saving saving) const {
  WorkspaceLayout space;
  if (saving == Saving::full) space.add<T>(conv_elements(layout, batch));
  return space.bytes();
}

template <Scalar T, class Exec>
void Local<T, Exec>::forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                             const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                             const SequenceOperatorArguments<T, Exec>& arguments) {
  const Kokkos::Profiling::ScopedRegion region("krait::Local::forward");
  const std::string function = "krait::Local::forward";
  require_one_rank(function, context);
  const std::int64_t batch = documents.rows();
  impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                            workspace_bytes(context, layout, batch, arguments.overwrites_input()),
                            room(context, layout, batch), saved_bytes(context, layout, batch, arguments.saving));
  const bool keep = arguments.saving == Saving::full && !is_absent(arguments.saved);
  std::byte* const conv_out = keep ? arguments.saved.data() : arguments.workspace.data();
  plan_for(exec, layout, batch)
      .run(exec, parameters,
           {.input = arguments.xBCdt,
            .map = impl::map_of<Exec>(layout),
            .conv_out = make_tensor<T***, Exec, 3>(reinterpret_cast<T*>(conv_out),
                                                   {batch, layout.length(), config_.conv_channels()}),
            .out = arguments.y,
            .conv_states = arguments.initial.conv,
            .states = arguments.initial.ssm,
            .final_conv_states = arguments.final.conv,
            .final_states = arguments.final.ssm},
           documents.runs());
}

template <Scalar T, class Exec>
auto Local<T, Exec>::backward_blocks(const SequenceLayout& layout, std::int64_t batch, Saving saving) const
    -> BackwardBlocks {
  BackwardBlocks blocks;
  WorkspaceLayout space;
  if (saving == Saving::lean) blocks.conv_out = space.add<T>(conv_elements(layout, batch));
  blocks.dconv_out = space.add<T>(conv_elements(layout, batch));
  blocks.scratch_bytes = slot_.holds(layout, batch) ? slot_.plan().backward_scratch_bytes()
                                                    : impl::ConvScan<T, Exec>::backward_scratch_bytes(
                                                          config_, partition(), batch, layout.length());
  blocks.scratch = space.add<std::byte>(static_cast<std::int64_t>(blocks.scratch_bytes));
  blocks.bytes = space.bytes();
  return blocks;
}

template <Scalar T, class Exec>
std::int64_t Local<T, Exec>::backward_room(const Communicator&, const SequenceLayout&, std::int64_t, Saving) const {
  return 0;
}

template <Scalar T, class Exec>
std::size_t Local<T, Exec>::backward_workspace_bytes(const Communicator&, const SequenceLayout& layout,
                                                     std::int64_t batch, Saving saving, bool) const {
  return backward_blocks(layout, batch, saving).bytes;
}

template <Scalar T, class Exec>
void Local<T, Exec>::backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                              const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                              const SequenceOperatorGradients<T, Exec>& gradients,
                              const SequenceOperatorBackwardArguments<T, Exec>& arguments) {
  const Kokkos::Profiling::ScopedRegion region("krait::Local::backward");
  const std::string function = "krait::Local::backward";
  require_one_rank(function, context);
  const std::int64_t batch = documents.rows();
  const BackwardBlocks blocks = backward_blocks(layout, batch, arguments.saving);
  impl::check_operator_backward(function, config_, context, layout, documents, parameters, gradients, arguments,
                                blocks.bytes, 0, saved_bytes(context, layout, batch, arguments.saving));
  impl::ConvScan<T, Exec>& whole = plan_for(exec, layout, batch);
  whole.prepare_backward(exec);

  std::byte* const workspace = arguments.workspace.data();
  const auto conv = [&](auto* memory) {
    using V = std::remove_pointer_t<decltype(memory)>;
    return make_tensor<V***, Exec, 3>(memory, {batch, layout.length(), config_.conv_channels()});
  };
  impl::ConvScanBackwardTensors<T, Exec> tensors;
  tensors.input = arguments.xBCdt;
  tensors.map = impl::map_of<Exec>(layout);
  if (arguments.saving == Saving::full) {
    tensors.conv_out = conv(reinterpret_cast<const T*>(arguments.saved.data()));
  } else {
    tensors.conv_memory = conv(reinterpret_cast<T*>(workspace + blocks.conv_out));
  }
  tensors.dout = arguments.dy;
  tensors.dconv_out = conv(reinterpret_cast<T*>(workspace + blocks.dconv_out));
  tensors.dinput = arguments.dxBCdt;
  tensors.scratch =
      make_tensor<std::byte*, Exec, 1>(workspace + blocks.scratch, {static_cast<std::int64_t>(blocks.scratch_bytes)});
  tensors.conv_states = arguments.initial.conv;
  tensors.states = arguments.initial.ssm;
  tensors.dfinal_conv_states = arguments.dfinal.conv;
  tensors.dfinal_states = arguments.dfinal.ssm;
  tensors.dconv_states = arguments.dinitial.conv;
  tensors.dstates = arguments.dinitial.ssm;
  whole.run_backward(exec, parameters, gradients, tensors, documents.runs());
}

#define KRAIT_INSTANTIATE(T, EXEC) template class Local<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
