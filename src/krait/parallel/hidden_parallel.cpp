// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/core/row_loop.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/hidden_parallel_backward.hpp>
#include <krait/parallel/hidden_parallel_memory.hpp>
#include <krait/parallel/hidden_parallel_plan.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {
namespace {

/// Columns of a part, kept among those of all. Token row q is row q % rows of place q / rows.
template <class T, class Exec>
struct KeepColumns {
  Tensor<const T***, Exec> from;
  Tensor<T***, Exec> to;
  std::int64_t rows;
  KOKKOS_FUNCTION void operator()(std::int64_t q, std::int64_t column) const {
    to(q % rows, q / rows, column) = from(q % rows, q / rows, column);
  }
};

}  // namespace

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::HiddenParallel(const SequenceOperatorConfig& config) : config_(config), agreed_(config) {
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
  const bool in_place = arguments.overwrites_input();
  impl::SharedValue head_blocks{"the blocks of heads", 0};
  const auto check = [&] {
    layout.require_match(function, context.place());
    impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                              workspace_bytes(context, layout, batch, in_place), room(context, layout, batch),
                              saved_bytes(context, layout, batch, arguments.saving));
    // Here, so that a rank that cannot have a plan, or its memory, does not leave the others waiting.
    Plan& plan = plan_for(exec, layout, batch);
    if (!is_absent(arguments.initial.conv) || !is_absent(arguments.final.conv))
      plan.states.reserve(exec, documents.documents());
    head_blocks.value = plan.blocks();
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  Plan& plan = slot_.plan();
  const HeadPartition& partition = plan.partition;

  using Part = impl::HeadPart<T, Exec>;
  const Blocks blocks(plan);
  const Saved saved(plan);
  const bool keep = arguments.saving == Saving::full && !is_absent(arguments.saved);
  T* const exchange = reinterpret_cast<T*>(arguments.workspace.data());
  T* const block = in_place ? arguments.xBCdt.data() : exchange + blocks.exchange.size;
  T* const y_out = in_place ? arguments.y.data() : block + blocks.arrival.size;
  T* const saved_arrival = keep ? reinterpret_cast<T*>(arguments.saved.data() + saved.arrival) : nullptr;
  T* const saved_conv = keep ? reinterpret_cast<T*>(arguments.saved.data() + saved.conv_out) : nullptr;
  const auto index = [](const Part& part) { return static_cast<std::size_t>(part.number); };
  // All of one part is all there is, and may arrive where it is kept.
  T* const arrival = keep && plan.parts.size() == 1 ? saved_arrival : block;
  const auto packed = [&](const Part& part) {
    return impl::flat<T, Exec>(exchange + blocks.exchange.old_begin[index(part)], part.enter.sequence_buffer_size());
  };
  const auto arrived = [&](const Part& part) {
    const std::int64_t begin = arrival == block ? blocks.arrival.old_begin[index(part)] : 0;
    return impl::flat<T, Exec>(arrival + begin, part.enter.heads_buffer_size());
  };
  const auto leaving = [&](const Part& part) {
    return impl::flat<T, Exec>(y_out + blocks.y_begin[index(part)], part.leave.heads_buffer_size());
  };
  const auto home = [&](const Part& part) {
    return impl::flat<T, Exec>(block + blocks.arrival.new_begin[index(part)], part.leave.sequence_buffer_size());
  };

  // In place, parts arrive where the input is, so that all of it is packed before the first one travels; and they are
  // unpacked to where others leave from, so that all are home before. Otherwise each goes its own way.
  std::vector<Request> entering;
  const auto enter = [&](const Part& part) {
    entering.push_back(part.enter.send_to_heads(plan.side(part.number, exec), context, packed(part), arrived(part)));
  };
  for (const Part& part : plan.parts) {
    part.enter.pack(exec, arguments.xBCdt, packed(part));
    if (!in_place) enter(part);
  }
  if (in_place) std::for_each(plan.parts.begin(), plan.parts.end(), enter);

  const std::int64_t states = documents.documents();
  const auto initial_conv = plan.initial_conv(exec, arguments.initial.conv);
  const auto initial_ssm = plan.states.heads(arguments.initial.ssm);
  Tensor<T***, Exec> final_conv;
  if (!is_absent(arguments.final.conv)) final_conv = plan.states.template second<T>(states);
  if (!is_absent(arguments.final.ssm)) Kokkos::deep_copy(exec, arguments.final.ssm, accumulator_t<T>(0));
  const auto final_ssm = plan.states.heads(arguments.final.ssm);
  plan.whole.take_parameters(exec, parameters);

  const auto map = impl::map_of<Exec>(layout);
  const std::int64_t states_width = 2 * partition.group_width_local();
  Tensor<const T***, Exec> BC;
  std::vector<Request> gone;
  for (const Part& part : plan.parts) {
    entering[index(part)].wait_on(exec);
    const Tensor<const T***, Exec> input =
        plan.alone() ? Tensor<const T***, Exec>(arguments.xBCdt) : part.enter.heads_view(arrived(part));
    if (keep && arrival == block) {
      const auto whole = impl::heads_tensor(saved_arrival, plan, plan.input_width());
      for (const auto& [column, local, count] : part.columns)
        impl::for_rows(
            "krait::HiddenParallel::keep_arrival", exec, plan.places(), count,
            KeepColumns<T, Exec>{impl::columns(input, local, count), impl::columns(whole, column, count), batch});
    }
    // In the order of this part's own columns, or of all, which a backward reads.
    const auto conv_out =
        keep ? impl::conv_tensor(saved_conv, plan, partition.conv_channels_local())
             : impl::conv_tensor(exchange + blocks.exchange.new_begin[index(part)], plan, part.channels);
    for (const auto& [column, local, count] : part.conv)
      plan.whole.convolve(exec, parameters,
                          impl::ConvChannels<T, Exec>{.first = column,
                                                      .x = impl::columns(input, local, count),
                                                      .map = map,
                                                      .out = impl::columns(conv_out, keep ? column : local, count),
                                                      .states = impl::part_of(initial_conv, column, count),
                                                      .final_states = impl::part_of(final_conv, column, count)},
                          documents.runs());
    if (part.number == 0) BC = impl::columns(conv_out, keep ? partition.d_inner_local() : part.inner, states_width);
    const std::int64_t x = keep ? part.heads.begin * config_.head_dim : 0;
    plan.whole.scan(
        exec, parameters,
        impl::ScanHeads<T, Exec>{.x = impl::columns(conv_out, x, part.inner),
                                 .BC = BC,
                                 .dt = impl::columns(input, part.channels, part.heads.count),
                                 .map = map,
                                 .out = part.leave.leave_target(arguments.y, leaving(part)),
                                 .states = impl::part_of(initial_ssm, part.heads.begin, part.heads.count),
                                 .final_states = impl::part_of(final_ssm, part.heads.begin, part.heads.count)},
        documents.runs(), part.number);
    gone.push_back(part.leave.send_to_sequence(plan.side(part.number, exec), context, leaving(part), home(part)));
  }
  if (!is_absent(arguments.final.conv)) plan.states.put(exec, final_conv, arguments.final.conv);
  if (in_place)
    for (Request& request : gone) request.wait_on(exec);
  for (const Part& part : plan.parts) {
    gone[index(part)].wait_on(exec);
    part.leave.unpack_part(exec, home(part), arguments.y);
  }
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
