// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/head_states.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {
namespace {

HeadPartition partition_of(const SequenceOperatorConfig& config, const Place& place) {
  return {place, {config.heads, config.head_dim, config.groups, config.d_state}, config.divisibility};
}

template <class V, class Exec>
Tensor<V*, Exec> flat(V* data, std::int64_t count) {
  return make_tensor<V*, Exec, 1>(data, {count});
}

/// Blocks begin at multiples of 128 bytes or more.
std::int64_t aligned(std::int64_t elements) { return (elements + 127) / 128 * 128; }

/// Memory as (b, length, width), rows of a token side by side as in a heads buffer.
template <class V, class Exec, class Plan>
Tensor<V***, Exec> heads_tensor(V* data, const Plan& plan, std::int64_t width) {
  return make_tensor<V***, Exec, 3>(data, {plan.rows(), plan.layout().length(), width},
                                    {width, plan.rows() * width, 1});
}

/// Memory as the output of the convolution.
template <class V, class Exec, class Plan>
Tensor<V***, Exec> conv_tensor(V* data, const Plan& plan, const HeadPartition& partition) {
  return make_tensor<V***, Exec, 3>(data, {plan.rows(), plan.layout().length(), partition.conv_channels_local()});
}

}  // namespace

/// The plans of all exchanges of one layout and batch.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Exchanges {
  HeadPartition partition;
  Redistribution<T, Exec> enter;       // x | B | C | dt, and gradients of them on the way back
  Redistribution<T, Exec> leave;       // y, and gradients of it on the way in
  Redistribution<T, Exec> enter_both;  // x | B | C | dt | dy

  Exchanges(const HeadPartition& heads, const SequenceLayout& layout, std::int64_t batch)
      : partition(heads),
        enter(layout, partition.projection_sections(false), batch),
        leave(layout, partition.inner_sections(), batch),
        enter_both(layout, partition.backward_sections(), batch) {}

  /// What a backward enters.
  [[nodiscard]] const Redistribution<T, Exec>& entering(Saving saving) const {
    return saving == Saving::lean ? enter_both : leave;
  }
  [[nodiscard]] std::int64_t places() const { return enter.rows() * enter.layout().length(); }
  [[nodiscard]] std::int64_t conv_elements() const { return places() * partition.conv_channels_local(); }
  [[nodiscard]] std::int64_t input_elements() const { return places() * enter.local_width(); }
};

/// Elements of each block of memory that a forward call walks through. A block is reused as soon as its contents are
/// dead. Given room(), the arrival lies in the caller's xBCdt, and y_out in the caller's y.
///
///     exchange   pack, send, conv_out      arrival: received, then what comes home      y_out: what the scan writes
///     enter      sequence buffer       ->  heads buffer
///     conv       conv_out              <-  heads buffer
///     scan       conv_out, heads buffer (dt)                                        ->  heads buffer of the way back
///     leave                                sequence buffer of the way back          <-  "
///     unpack                               "                                        ->  y
///
/// A forward that saves everything has heads buffer and conv_out in memory that its caller keeps, and what comes home
/// in `exchange`.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Blocks {
  std::int64_t exchange = 0;
  std::int64_t arrival = 0;
  std::int64_t y_out = 0;

  explicit Blocks(const Exchanges& plans)
      : exchange(aligned(std::max(plans.enter.sequence_buffer_size(), plans.conv_elements()))),
        arrival(aligned(std::max(plans.enter.heads_buffer_size(), plans.leave.sequence_buffer_size()))),
        y_out(aligned(plans.leave.heads_buffer_size())) {}

  [[nodiscard]] std::int64_t of_workspace(bool overwrite_input) const {
    return exchange + (overwrite_input ? 0 : arrival + y_out);
  }
};

/// What Saving::full keeps, in bytes.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::SavedBlocks {
  std::size_t arrival = 0;
  std::size_t conv_out = 0;
  std::size_t bytes = 0;

  explicit SavedBlocks(const Exchanges& plans) {
    WorkspaceLayout space;
    arrival = space.add<T>(plans.enter.heads_buffer_size());
    conv_out = space.add<T>(plans.conv_elements());
    bytes = space.bytes();
  }
};

/// The same as Blocks of a backward call. Given room, the arrival lies in the caller's dy.
///
///     first, then second                             arrival
///     enter   sequence buffer                    ->  heads buffer: x | B | C | dt | dy, or dy
///     conv    first: conv_out                    <-  "
///     scan    second: dconv_out, first: ddt      <-  ", conv_out
///     conv    first: dx | dB | dC | ddt          <-  ", dconv_out
///     leave   "                                  ->  sequence buffer of the way back  -->  dxBCdt
///
/// conv_out lies in columns x | B | C of rows that have room for dt, so that the gradient of dt can already be stored
/// where it belongs. After a forward that saved everything it lies there, with what arrived.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::BackwardBlocks {
  std::int64_t first = 0;
  std::int64_t second = 0;
  std::int64_t arrival = 0;
  std::size_t scratch_bytes = 0;

  BackwardBlocks(const Exchanges& plans, Saving saving, std::size_t scratch) : scratch_bytes(scratch) {
    const Redistribution<T, Exec>& entering = plans.entering(saving);
    const bool in_caller = plans.enter.passthrough() && saving == Saving::full;  // dxBCdt is written, conv_out is saved
    first = in_caller ? 0 : aligned(plans.input_elements());
    second = aligned(std::max(plans.conv_elements(), entering.sequence_buffer_size() - first));
    arrival = aligned(std::max(entering.heads_buffer_size(), plans.enter.sequence_buffer_size()));
  }

  [[nodiscard]] std::int64_t elements(bool overwrite_dy) const { return first + second + (overwrite_dy ? 0 : arrival); }
  /// Blocks first, then the scratch.
  [[nodiscard]] std::size_t of_workspace(bool overwrite_dy) const {
    return static_cast<std::size_t>(elements(overwrite_dy)) * sizeof(T) + scratch_bytes;
  }
};

template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Plan : Exchanges {
  impl::ConvScan<T, Exec> whole;
  impl::HeadStates<T, Exec> states;

  Plan(const Exec& exec, const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t batch)
      : Exchanges(partition_of(config, layout.place()), layout, batch),
        whole(exec, config, this->partition, batch, layout.length()),
        states(this->partition, config.d_conv) {}

  /// This rank's heads and channels of initial states, for a forward or a backward.
  template <class Tensors>
  void take_initial(const Exec& exec, const InitialStates<T, Exec>& initial, Tensors& tensors) const {
    if (!is_absent(initial.conv)) {
      const auto channels = states.template first<accumulator_t<T>>(static_cast<std::int64_t>(initial.conv.extent(0)));
      states.gather(exec, initial.conv, channels);
      tensors.conv_states = channels;
    }
    tensors.states = states.heads(initial.ssm);
  }
};

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::HiddenParallel(const SequenceOperatorConfig& config) : config_(config), agreed_(config) {
  config_.validate();
}

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::~HiddenParallel() = default;

template <Scalar T, class Exec>
HeadPartition HiddenParallel<T, Exec>::partition(const Place& context) const {
  return partition_of(config_, context);
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::blocks_for(const Communicator& context, const SequenceLayout& layout,
                                         std::int64_t batch) const -> Blocks {
  if (slot_.holds(layout, batch)) return Blocks(slot_.plan());
  return Blocks(Exchanges(partition(context.place()), layout, batch));
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::backward_blocks_for(const Communicator& context, const SequenceLayout& layout,
                                                  std::int64_t batch, Saving saving) const -> BackwardBlocks {
  if (slot_.holds(layout, batch)) return {slot_.plan(), saving, slot_.plan().whole.backward_scratch_bytes()};
  const HeadPartition heads = partition(context.place());
  return {Exchanges(heads, layout, batch), saving,
          impl::ConvScan<T, Exec>::backward_scratch_bytes(config_, heads, batch, layout.length())};
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) -> Plan& {
  if (!slot_.holds(layout, batch)) slot_.set(layout, batch, std::make_unique<Plan>(exec, config_, layout, batch));
  return slot_.plan();
}

template <Scalar T, class Exec>
OperatorRoom HiddenParallel<T, Exec>::room(const Communicator& context, const SequenceLayout& layout,
                                           std::int64_t batch) const {
  const Blocks blocks = blocks_for(context, layout, batch);
  return {.xBCdt = blocks.arrival, .y = blocks.y_out};
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                     std::int64_t batch, bool overwrite_input) const {
  const Blocks blocks = blocks_for(context, layout, batch);
  return static_cast<std::size_t>(blocks.of_workspace(overwrite_input)) * sizeof(T);
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::saved_bytes(const Communicator& context, const SequenceLayout& layout,
                                                 std::int64_t batch, Saving saving) const {
  if (saving == Saving::lean) return 0;
  if (slot_.holds(layout, batch)) return SavedBlocks(slot_.plan()).bytes;
  return SavedBlocks(Exchanges(partition(context.place()), layout, batch)).bytes;
}

template <Scalar T, class Exec>
std::int64_t HiddenParallel<T, Exec>::backward_room(const Communicator& context, const SequenceLayout& layout,
                                                    std::int64_t batch, Saving saving) const {
  return backward_blocks_for(context, layout, batch, saving).arrival;
}

template <Scalar T, class Exec>
std::size_t HiddenParallel<T, Exec>::backward_workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                              std::int64_t batch, Saving saving,
                                                              bool overwrite_dy) const {
  return backward_blocks_for(context, layout, batch, saving).of_workspace(overwrite_dy);
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
  agreed_(context, function.c_str(), layout, documents, [&] {
    layout.require_match(function, context.place());
    impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                              workspace_bytes(context, layout, batch, in_place), room(context, layout, batch),
                              saved_bytes(context, layout, batch, arguments.saving));
    // Here, so that a rank that cannot have a plan, or its memory, does not leave the others waiting.
    Plan& plan = plan_for(exec, layout, batch);
    if (!is_absent(arguments.initial.conv) || !is_absent(arguments.final.conv))
      plan.states.reserve(exec, documents.documents());
  });
  const Plan& plan = slot_.plan();

  const Blocks blocks(plan);
  const bool keep = arguments.saving == Saving::full && !is_absent(arguments.saved);
  const SavedBlocks saved(plan);
  T* const exchange = reinterpret_cast<T*>(arguments.workspace.data());
  T* const block = in_place ? arguments.xBCdt.data() : exchange + blocks.exchange;
  T* const y_out = in_place ? arguments.y.data() : exchange + blocks.exchange + blocks.arrival;
  T* const arrival = keep ? reinterpret_cast<T*>(arguments.saved.data() + saved.arrival) : block;
  T* const conv_out = keep ? reinterpret_cast<T*>(arguments.saved.data() + saved.conv_out) : exchange;

  auto entered =
      plan.enter.enter(exec, context, arguments.xBCdt, flat<T, Exec>(exchange, plan.enter.sequence_buffer_size()),
                       flat<T, Exec>(arrival, plan.enter.heads_buffer_size()));
  entered.request.wait_on(exec);

  const auto leaving = flat<T, Exec>(y_out, plan.leave.heads_buffer_size());
  impl::ConvScanTensors<T, Exec> tensors;
  tensors.input = entered.heads;
  tensors.map = impl::map_of<Exec>(layout);
  tensors.conv_out = conv_tensor<T, Exec>(conv_out, plan.enter, plan.partition);
  tensors.out = plan.leave.leave_target(arguments.y, leaving);
  const std::int64_t states = documents.documents();
  plan.take_initial(exec, arguments.initial, tensors);
  if (!is_absent(arguments.final.conv)) tensors.final_conv_states = plan.states.template second<T>(states);
  if (!is_absent(arguments.final.ssm)) {
    Kokkos::deep_copy(exec, arguments.final.ssm, accumulator_t<T>(0));
    tensors.final_states = plan.states.heads(arguments.final.ssm);
  }
  plan.whole.run(exec, parameters, tensors, documents.runs());
  if (!is_absent(arguments.final.conv)) plan.states.put(exec, tensors.final_conv_states, arguments.final.conv);

  if (plan.leave.passthrough()) return;
  const auto home = flat<T, Exec>(keep ? exchange : block, plan.leave.sequence_buffer_size());
  plan.leave.send_to_sequence(exec, context, leaving, home).wait_on(exec);
  plan.leave.unpack(exec, home, arguments.y);
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
  const bool in_place = arguments.room > 0;
  const bool lean = arguments.saving == Saving::lean;
  const bool uses_conv_states =
      !is_absent(arguments.initial.conv) || !is_absent(arguments.dfinal.conv) || !is_absent(arguments.dinitial.conv);
  agreed_(context, function.c_str(), layout, documents, [&] {
    layout.require_match(function, context.place());
    const BackwardBlocks blocks = backward_blocks_for(context, layout, batch, arguments.saving);
    impl::check_operator_backward(function, config_, context, layout, documents, parameters, gradients, arguments,
                                  blocks.of_workspace(in_place), blocks.arrival,
                                  saved_bytes(context, layout, batch, arguments.saving));
    Plan& plan = plan_for(exec, layout, batch);
    plan.whole.prepare_backward(exec);
    if (uses_conv_states) plan.states.reserve(exec, documents.documents());
  });
  const Plan& plan = slot_.plan();

  const BackwardBlocks blocks(plan, arguments.saving, plan.whole.backward_scratch_bytes());
  T* const first = reinterpret_cast<T*>(arguments.workspace.data());
  T* const second = first + blocks.first;
  T* const arrival = in_place ? arguments.dy.data() : second + blocks.second;
  const Redistribution<T, Exec>& entering = plan.entering(arguments.saving);
  const auto packed = flat<T, Exec>(first, entering.sequence_buffer_size());
  const auto arrived = flat<T, Exec>(arrival, entering.heads_buffer_size());
  if (lean) entering.pack_columns(exec, arguments.xBCdt, 0, packed);
  entering.pack_columns(exec, arguments.dy, lean ? plan.enter.width() : 0, packed);
  entering.send_to_heads(exec, context, packed, arrived).wait_on(exec);

  impl::ConvScanBackwardTensors<T, Exec> tensors;
  tensors.map = impl::map_of<Exec>(layout);
  const SavedBlocks saved(plan);
  const std::byte* const kept = arguments.saved.data();
  const std::int64_t input_width = plan.enter.local_width();
  if (plan.enter.passthrough()) {
    tensors.input = arguments.xBCdt;
    tensors.dout = arguments.dy;
  } else {
    const Tensor<const T***, Exec> heads = entering.heads_view(arrived);
    tensors.input =
        lean ? impl::columns(heads, 0, input_width)
             : heads_tensor<const T, Exec>(reinterpret_cast<const T*>(kept + saved.arrival), plan.enter, input_width);
    tensors.dout = lean ? impl::columns(heads, input_width, plan.leave.local_width()) : heads;
  }
  const std::int64_t channels = plan.partition.conv_channels_local();
  if (lean) {
    tensors.conv_memory = impl::columns(heads_tensor<T, Exec>(first, plan.enter, input_width), 0, channels);
  } else {
    tensors.conv_out =
        conv_tensor<const T, Exec>(reinterpret_cast<const T*>(kept + saved.conv_out), plan.enter, plan.partition);
  }
  tensors.dconv_out = conv_tensor<T, Exec>(second, plan.enter, plan.partition);
  const auto leaving = flat<T, Exec>(first, plan.enter.heads_buffer_size());
  tensors.dinput = plan.enter.leave_target(arguments.dxBCdt, leaving);
  tensors.scratch = make_tensor<std::byte*, Exec, 1>(
      arguments.workspace.data() + static_cast<std::size_t>(blocks.elements(in_place)) * sizeof(T),
      {static_cast<std::int64_t>(blocks.scratch_bytes)});
  using A = accumulator_t<T>;
  const std::int64_t states = documents.documents();
  plan.take_initial(exec, arguments.initial, tensors);
  if (!is_absent(arguments.dfinal.conv)) {
    const auto dfinal = plan.states.template second<A>(states);
    plan.states.gather_gradients(exec, arguments.dfinal.conv, dfinal);
    tensors.dfinal_conv_states = dfinal;
  }
  tensors.dfinal_states = plan.states.heads(arguments.dfinal.ssm);
  if (!is_absent(arguments.dinitial.conv)) tensors.dconv_states = plan.states.template third<A>(states);
  if (!is_absent(arguments.dinitial.ssm)) {
    Kokkos::deep_copy(exec, arguments.dinitial.ssm, A(0));
    tensors.dstates = plan.states.heads(arguments.dinitial.ssm);
  }
  plan.whole.run_backward(exec, parameters, gradients, tensors, documents.runs());
  if (!is_absent(arguments.dinitial.conv))
    plan.states.put_gradients(exec, tensors.dconv_states, arguments.dinitial.conv);

  if (plan.enter.passthrough()) return;
  const auto home = flat<T, Exec>(arrival, plan.enter.sequence_buffer_size());
  plan.enter.send_to_sequence(exec, context, leaving, home).wait_on(exec);
  plan.enter.unpack_sum(exec, home, arguments.dxBCdt);
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
      enter.enter(exec, context, in, flat<T, Exec>(steps_.template at<T>(sequence), enter.sequence_buffer_size()),
                  flat<T, Exec>(steps_.template at<T>(arrival), enter.heads_buffer_size()));
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
  const auto heads_buffer = flat<T, Exec>(steps_.template at<T>(leaving), leave.heads_buffer_size());
  leave.from_sequential(exec, in, leave.leave_target(out, heads_buffer));
  if (leave.passthrough()) return out;
  const auto sequence_buffer = flat<T, Exec>(steps_.template at<T>(home), leave.sequence_buffer_size());
  leave.send_to_sequence(exec, context, heads_buffer, sequence_buffer).wait_on(exec);
  leave.unpack(exec, sequence_buffer, out);
  return out;
}

#define KRAIT_INSTANTIATE(T, EXEC) template class HiddenParallel<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
