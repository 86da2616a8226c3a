// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel.hpp>

#include <memory>
#include <string>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/hidden_parallel_backward.hpp>
#include <krait/parallel/hidden_parallel_forward.hpp>
#include <krait/parallel/hidden_parallel_memory.hpp>
#include <krait/parallel/hidden_parallel_plan.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::HiddenParallel(const SequenceOperatorConfig& config)
    : config_(config), agreed_(Strategy::hidden_parallel, config) {
  config_.validate();
}

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::~HiddenParallel() = default;

template <Scalar T, class Exec>
HeadPartition HiddenParallel<T, Exec>::partition(const Place& context) const {
  return impl::shared_heads(config_, context);
}

template <Scalar T, class Exec>
template <class Use>
auto HiddenParallel<T, Exec>::with_exchanges(const Communicator& context, const SequenceLayout& layout,
                                             std::int64_t batch, const Use& use) const {
  if (slot_.holds(layout, batch)) return use(slot_.plan());
  return use(Exchanges(config_, context.place(), layout, batch));
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) -> Plan& {
  if (!slot_.holds(layout, batch)) slot_.set(layout, batch, std::make_unique<Plan>(exec, config_, layout, batch));
  return slot_.plan();
}

template <Scalar T, class Exec>
OperatorRoom HiddenParallel<T, Exec>::room(const Communicator& context, const SequenceLayout& layout,
                                           std::int64_t batch) const {
  return with_exchanges(context, layout, batch, [](const Exchanges& plans) {
    const Blocks blocks(plans);
    return OperatorRoom{.xBCdt = blocks.arrival.size, .y = blocks.y_out};
  });
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                     std::int64_t batch, bool overwrite_input) const {
  return with_exchanges(context, layout, batch, [&](const Exchanges& plans) {
    return static_cast<std::size_t>(Blocks(plans).of_workspace(overwrite_input)) * sizeof(T);
  });
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::saved_bytes(const Communicator& context, const SequenceLayout& layout,
                                                 std::int64_t batch, Saving saving) const {
  if (saving == Saving::lean) return 0;
  return with_exchanges(context, layout, batch, [](const Exchanges& plans) { return Saved(plans).bytes; });
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::gradient_blocks(const Communicator& context, const SequenceLayout& layout,
                                              std::int64_t batch, Saving saving) const -> GradientBlocks {
  if (slot_.holds(layout, batch)) return {slot_.plan(), saving, slot_.plan().whole.backward_scratch_bytes()};
  const Exchanges plans(config_, context.place(), layout, batch);
  return {plans, saving,
          impl::ConvScan<T, Exec>::backward_scratch_bytes(config_, plans.partition, batch, layout.length(),
                                                          plans.blocks())};
}

template <Scalar T, class Exec>
std::int64_t HiddenParallel<T, Exec>::backward_room(const Communicator& context, const SequenceLayout& layout,
                                                    std::int64_t batch, Saving saving) const {
  return gradient_blocks(context, layout, batch, saving).arrival.size;
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::backward_workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                              std::int64_t batch, Saving saving,
                                                              bool overwrite_dy) const {
  return gradient_blocks(context, layout, batch, saving).of_workspace(overwrite_dy);
}

template <Scalar T, class Exec>
void HiddenParallel<T, Exec>::forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                      const DocumentMap& documents,
                                      const SequenceOperatorParameters<T, Exec>& parameters,
                                      const SequenceOperatorArguments<T, Exec>& arguments) {
  const Kokkos::Profiling::ScopedRegion region("krait::HiddenParallel::forward");
  const std::string function = "krait::HiddenParallel::forward";
  const std::int64_t batch = documents.rows();
  impl::SharedValue head_blocks{"the blocks of heads", 0};
  const auto check = [&] {
    layout.require_match(function, context.place());
    impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                              workspace_bytes(context, layout, batch, arguments.overwrites_input()),
                              room(context, layout, batch), saved_bytes(context, layout, batch, arguments.saving));
    // Here, so that a rank that cannot have a plan, or its memory, does not leave the others waiting.
    Plan& plan = plan_for(exec, layout, batch);
    if (!is_absent(arguments.initial.conv) || !is_absent(arguments.final.conv))
      plan.states.reserve(exec, documents.documents());
    head_blocks.value = plan.blocks();
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  impl::HiddenForward<T, Exec>(exec, context, slot_.plan(), layout, documents, parameters, arguments).run();
}

template <Scalar T, class Exec>
void HiddenParallel<T, Exec>::backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                       const DocumentMap& documents,
                                       const SequenceOperatorParameters<T, Exec>& parameters,
                                       const SequenceOperatorGradients<T, Exec>& gradients,
                                       const SequenceOperatorBackwardArguments<T, Exec>& arguments) {
  const Kokkos::Profiling::ScopedRegion region("krait::HiddenParallel::backward");
  const std::string function = "krait::HiddenParallel::backward";
  const std::int64_t batch = documents.rows();
  const bool uses_conv_states =
      !is_absent(arguments.initial.conv) || !is_absent(arguments.dfinal.conv) || !is_absent(arguments.dinitial.conv);
  impl::SharedValue head_blocks{"the blocks of heads", 0};
  const auto check = [&] {
    layout.require_match(function, context.place());
    const GradientBlocks blocks = gradient_blocks(context, layout, batch, arguments.saving);
    impl::check_operator_backward(function, config_, context, layout, documents, parameters, gradients, arguments,
                                  blocks.of_workspace(arguments.room > 0), blocks.arrival.size,
                                  saved_bytes(context, layout, batch, arguments.saving));
    Plan& plan = plan_for(exec, layout, batch);
    plan.whole.prepare_backward(exec);
    if (uses_conv_states) plan.states.reserve(exec, documents.documents());
    head_blocks.value = plan.blocks();
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  impl::HiddenBackward<T, Exec>(exec, context, slot_.plan(), layout, documents, parameters, gradients, arguments).run();
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenParallel<T, Exec>::pre_conv_ssm(const Exec& exec, const Communicator& context,
                                                               const SequenceLayout& layout,
                                                               const Tensor<const T***, Exec>& in) {
  const Kokkos::Profiling::ScopedRegion region("krait::HiddenParallel::pre_conv_ssm");
  const HeadPartition heads = partition(context.place());
  const auto width = static_cast<std::int64_t>(in.extent(2));
  const bool with_z = width == heads.projection_width(true);
  KRAIT_REQUIRE(ShapeError, with_z || width == heads.projection_width(false),
                "krait::HiddenParallel::pre_conv_ssm: in has ", width, " columns, expected ",
                heads.projection_width(true), ", or ", heads.projection_width(false), " without z");
  const auto rows = static_cast<std::int64_t>(in.extent(0));
  layout.require_match("krait::HiddenParallel::pre_conv_ssm", context.place());
  KRAIT_REQUIRE(ShapeError, static_cast<std::int64_t>(in.extent(1)) == layout.local_length(),
                "krait::HiddenParallel::pre_conv_ssm: in has ", in.extent(1), " tokens, expected ",
                layout.local_length(), " of the ", layout.description());
  const Redistribution<T, Exec> enter(layout, heads.projection_sections(with_z), rows);
  if (enter.passthrough() && layout.is_identity()) return in;

  WorkspaceLayout space;
  const std::size_t sequence = space.add<T>(enter.sequence_buffer_size());
  const std::size_t arrival = space.add<T>(enter.heads_buffer_size());
  const std::size_t result = space.add<T>(rows * layout.length() * enter.local_width());
  steps_.reserve(exec, space.bytes());
  auto entered =
      enter.enter(exec, context, in, impl::flat<T, Exec>(steps_.template at<T>(sequence), enter.sequence_buffer_size()),
                  impl::flat<T, Exec>(steps_.template at<T>(arrival), enter.heads_buffer_size()));
  entered.request.wait_on(exec);
  const auto out =
      make_tensor<T***, Exec, 3>(steps_.template at<T>(result), {rows, layout.length(), enter.local_width()});
  enter.to_sequential(exec, entered.heads, out);
  return out;
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenParallel<T, Exec>::post_conv_ssm(const Exec& exec, const Communicator& context,
                                                                const SequenceLayout& layout,
                                                                const Tensor<const T***, Exec>& in) {
  const Kokkos::Profiling::ScopedRegion region("krait::HiddenParallel::post_conv_ssm");
  const HeadPartition heads = partition(context.place());
  const auto rows = static_cast<std::int64_t>(in.extent(0));
  layout.require_match("krait::HiddenParallel::post_conv_ssm", context.place());
  const std::vector<std::int64_t> expected = {rows, layout.length(), heads.d_inner_local()};
  KRAIT_REQUIRE(ShapeError, extents(in) == expected, "krait::HiddenParallel::post_conv_ssm: in is ", extents(in),
                ", expected ", expected);
  const Redistribution<T, Exec> leave(layout, heads.inner_sections(), rows);
  if (leave.passthrough() && layout.is_identity()) return in;

  WorkspaceLayout space;
  const std::size_t leaving = space.add<T>(leave.heads_buffer_size());
  const std::size_t home = space.add<T>(leave.sequence_buffer_size());
  const std::size_t result = space.add<T>(rows * layout.local_length() * leave.width());
  steps_.reserve(exec, space.bytes());
  const auto out =
      make_tensor<T***, Exec, 3>(steps_.template at<T>(result), {rows, layout.local_length(), leave.width()});
  const auto heads_buffer = impl::flat<T, Exec>(steps_.template at<T>(leaving), leave.heads_buffer_size());
  leave.from_sequential(exec, in, leave.leave_target(out, heads_buffer));
  if (leave.passthrough()) return out;
  const auto sequence_buffer = impl::flat<T, Exec>(steps_.template at<T>(home), leave.sequence_buffer_size());
  leave.send_to_sequence(exec, context, heads_buffer, sequence_buffer).wait_on(exec);
  leave.unpack(exec, sequence_buffer, out);
  return out;
}

#define KRAIT_INSTANTIATE(T, EXEC) template class HiddenParallel<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
