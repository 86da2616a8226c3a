// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/core/row_loop.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/head_blocks.hpp>
#include <krait/parallel/head_states.hpp>
#include <krait/parallel/operator_checks.hpp>
#include <krait/parallel/relay.hpp>
#include <krait/parallel/side_queue.hpp>

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

/// Memory as the output of the convolution, of all or of some channels.
template <class V, class Exec, class Plan>
Tensor<V***, Exec> conv_tensor(V* data, const Plan& plan, std::int64_t channels) {
  return make_tensor<V***, Exec, 3>(data, {plan.rows(), plan.layout().length(), channels});
}

/// A part of the second extent of states, of channels or heads.
template <class States>
States part_of(const States& states, std::int64_t begin, std::int64_t count) {
  if (is_absent(states)) return {};
  const auto range = Kokkos::make_pair(begin, begin + count);
  if constexpr (States::rank() == 3) {
    return Kokkos::subview(states, Kokkos::ALL, range, Kokkos::ALL);
  } else {
    return Kokkos::subview(states, Kokkos::ALL, range, Kokkos::ALL, Kokkos::ALL);
  }
}

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

/// A block of heads in a forward, which travels while others are worked on.
template <Scalar T, class Exec>
struct HeadPart {
  std::int64_t number;
  UnitRange heads;                                 ///< among the rank's own
  std::int64_t inner, channels;                    ///< columns x, and x | B | C; those of dt come behind
  std::vector<SectionTable::Piece> conv, columns;  ///< where x | B | C, and x | B | C | dt, lie among the rank's own
  Redistribution<T, Exec> enter, leave;

  HeadPart(const HeadPartition& partition, const SequenceLayout& layout, std::int64_t batch, std::int64_t k,
           std::int64_t blocks)
      : number(k),
        heads(partition.block(partition.rank(), k, blocks)),
        enter(layout, partition.projection_block(k, blocks), batch),
        leave(layout, partition.inner_block(k, blocks), batch) {
    heads.begin -= partition.heads_begin(partition.rank());
    const HeadShape& shape = partition.shape();
    const std::int64_t of_groups = 2 * partition.groups();  // B and C come with the first
    std::vector<Section> sections{{"x", partition.heads(), shape.head_dim, {heads}},
                                  {"B, C", of_groups, shape.d_state, {{0, k == 0 ? of_groups : 0}}}};
    inner = heads.count * shape.head_dim;
    channels = inner + sections[1].of_rank[0].count * shape.d_state;
    conv = SectionTable(sections).pieces(0);
    sections.push_back({"dt", partition.heads(), 1, {heads}});
    columns = SectionTable(sections).pieces(0);
  }

  [[nodiscard]] std::int64_t conv_elements() const { return enter.rows() * enter.layout().length() * channels; }
};

}  // namespace

/// The plans of all exchanges of one layout and batch.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Exchanges {
  HeadPartition partition;
  std::vector<HeadPart<T, Exec>> parts;  // of a forward
  // Of a backward, which works on all heads at once.
  Redistribution<T, Exec> enter;       // x | B | C | dt, and gradients of them on the way back
  Redistribution<T, Exec> leave;       // gradients of y on the way in
  Redistribution<T, Exec> enter_both;  // x | B | C | dt | dy

  Exchanges(const SequenceOperatorConfig& config, const Place& place, const SequenceLayout& layout, std::int64_t batch)
      : partition(partition_of(config, place)),
        enter(layout, partition.projection_sections(false), batch),
        leave(layout, partition.inner_sections(), batch),
        enter_both(layout, partition.backward_sections(), batch) {
    const std::int64_t blocks = impl::shared_head_blocks(config, layout.ranks(), !impl::is_host_execution<Exec>);
    for (std::int64_t k = 0; k < blocks; ++k) parts.emplace_back(partition, layout, batch, k, blocks);
  }

  /// What a backward enters.
  [[nodiscard]] const Redistribution<T, Exec>& entering(Saving saving) const {
    return saving == Saving::lean ? enter_both : leave;
  }
  [[nodiscard]] std::int64_t places() const { return enter.rows() * enter.layout().length(); }
  [[nodiscard]] std::int64_t conv_elements() const { return places() * partition.conv_channels_local(); }
  [[nodiscard]] std::int64_t input_elements() const { return places() * enter.local_width(); }
  /// `size` of every part.
  template <class Size>
  [[nodiscard]] std::vector<std::int64_t> of_parts(const Size& size) const {
    std::vector<std::int64_t> sizes;
    for (const HeadPart<T, Exec>& part : parts) sizes.push_back(aligned(size(part)));
    return sizes;
  }
};

/// Elements of each block of memory that a forward call walks through, and where the parts lie in it. A block is reused
/// as soon as its contents are dead, part by part. Given room(), the arrival lies in the caller's xBCdt, and y_out in
/// the caller's y.
///
///     exchange   pack, send, conv_out      arrival: received, then what comes home      y_out: what the scan writes
///     enter      sequence buffers      ->  heads buffers
///     conv       conv_out              <-  heads buffer
///     scan       conv_out, heads buffer (dt)                                        ->  heads buffer of the way back
///     leave                                sequence buffer of the way back          <-  "
///     unpack                               "                                        ->  y
///
/// A forward that saves everything has conv_out, and what arrives, in memory that its caller keeps.
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Blocks {
  using Part = HeadPart<T, Exec>;
  impl::Relay exchange;  // from sequence buffers to conv_out
  impl::Relay arrival;   // from what is received to what comes home
  std::vector<std::int64_t> y_begin;
  std::int64_t y_out = 0;

  explicit Blocks(const Exchanges& plans)
      : exchange(plans.of_parts([](const Part& part) { return part.enter.sequence_buffer_size(); }),
                 plans.of_parts([](const Part& part) { return part.conv_elements(); })),
        arrival(plans.of_parts([](const Part& part) { return part.enter.heads_buffer_size(); }),
                plans.of_parts([](const Part& part) { return part.leave.sequence_buffer_size(); })) {
    for (const std::int64_t size : plans.of_parts([](const Part& part) { return part.leave.heads_buffer_size(); })) {
      y_begin.push_back(y_out);
      y_out += size;
    }
  }

  [[nodiscard]] std::int64_t of_workspace(bool overwrite_input) const {
    return exchange.size + (overwrite_input ? 0 : arrival.size + y_out);
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
      : Exchanges(config, layout.place(), layout, batch),
        whole(exec, config, this->partition, batch, layout.length(), static_cast<std::int64_t>(this->parts.size())),
        states(this->partition, config.d_conv) {
    for (std::size_t k = 0; k < this->parts.size(); ++k) sides_.emplace_back(exec);
  }

  /// Where a part travels, after all that `exec` holds now.
  const Exec& side(const HeadPart<T, Exec>& part, const Exec& exec) {
    return sides_[static_cast<std::size_t>(part.number)].after(exec);
  }

  /// This rank's channels of initial states of the convolution, in memory of the plan; absent if they are.
  [[nodiscard]] Tensor<accumulator_t<T>***, Exec> initial_conv(const Exec& exec,
                                                               const Tensor<const T***, Exec>& initial) const {
    if (is_absent(initial)) return {};
    const auto channels = states.template first<accumulator_t<T>>(static_cast<std::int64_t>(initial.extent(0)));
    states.gather(exec, initial, channels);
    return channels;
  }

 private:
  std::vector<impl::SideQueue<Exec>> sides_;
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
  return Blocks(Exchanges(config_, context.place(), layout, batch));
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::backward_blocks_for(const Communicator& context, const SequenceLayout& layout,
                                                  std::int64_t batch, Saving saving) const -> BackwardBlocks {
  if (slot_.holds(layout, batch)) return {slot_.plan(), saving, slot_.plan().whole.backward_scratch_bytes()};
  const Exchanges plans(config_, context.place(), layout, batch);
  return {plans, saving,
          impl::ConvScan<T, Exec>::backward_scratch_bytes(config_, plans.partition, batch, layout.length())};
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
  return {.xBCdt = blocks.arrival.size, .y = blocks.y_out};
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
  return SavedBlocks(Exchanges(config_, context.place(), layout, batch)).bytes;
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
    head_blocks.value = static_cast<std::int64_t>(plan.parts.size());
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  Plan& plan = slot_.plan();
  const HeadPartition& partition = plan.partition;

  using Part = HeadPart<T, Exec>;
  const Blocks blocks(plan);
  const SavedBlocks saved(plan);
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
    return flat<T, Exec>(exchange + blocks.exchange.old_begin[index(part)], part.enter.sequence_buffer_size());
  };
  const auto arrived = [&](const Part& part) {
    const std::int64_t begin = arrival == block ? blocks.arrival.old_begin[index(part)] : 0;
    return flat<T, Exec>(arrival + begin, part.enter.heads_buffer_size());
  };
  const auto leaving = [&](const Part& part) {
    return flat<T, Exec>(y_out + blocks.y_begin[index(part)], part.leave.heads_buffer_size());
  };
  const auto home = [&](const Part& part) {
    return flat<T, Exec>(block + blocks.arrival.new_begin[index(part)], part.leave.sequence_buffer_size());
  };

  // In place, parts arrive where the input is, so that all of it is packed before the first one travels; and they are
  // unpacked to where others leave from, so that all are home before. Otherwise each goes its own way.
  std::vector<Request> entering;
  const auto enter = [&](const Part& part) {
    entering.push_back(part.enter.send_to_heads(plan.side(part, exec), context, packed(part), arrived(part)));
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
  const std::int64_t input_width = plan.enter.local_width();
  const std::int64_t states_width = 2 * partition.group_width_local();
  Tensor<const T***, Exec> BC;
  std::vector<Request> gone;
  for (const Part& part : plan.parts) {
    entering[index(part)].wait_on(exec);
    const Tensor<const T***, Exec> input =
        part.enter.passthrough() ? Tensor<const T***, Exec>(arguments.xBCdt) : part.enter.heads_view(arrived(part));
    if (keep && arrival == block) {
      const auto whole = heads_tensor<T, Exec>(saved_arrival, plan.enter, input_width);
      for (const auto& [column, local, count] : part.columns)
        impl::for_rows(
            "krait::HiddenParallel::keep_arrival", exec, plan.places(), count,
            KeepColumns<T, Exec>{impl::columns(input, local, count), impl::columns(whole, column, count), batch});
    }
    // In the order of this part's own columns, or of all, which a backward reads.
    const auto conv_out =
        keep ? conv_tensor<T, Exec>(saved_conv, plan.enter, partition.conv_channels_local())
             : conv_tensor<T, Exec>(exchange + blocks.exchange.new_begin[index(part)], plan.enter, part.channels);
    for (const auto& [column, local, count] : part.conv)
      plan.whole.convolve(exec, parameters,
                          impl::ConvChannels<T, Exec>{.first = column,
                                                      .x = impl::columns(input, local, count),
                                                      .map = map,
                                                      .out = impl::columns(conv_out, keep ? column : local, count),
                                                      .states = part_of(initial_conv, column, count),
                                                      .final_states = part_of(final_conv, column, count)},
                          documents.runs());
    if (part.number == 0) BC = impl::columns(conv_out, keep ? partition.d_inner_local() : part.inner, states_width);
    const std::int64_t x = keep ? part.heads.begin * config_.head_dim : 0;
    plan.whole.scan(exec, parameters,
                    impl::ScanHeads<T, Exec>{.x = impl::columns(conv_out, x, part.inner),
                                             .BC = BC,
                                             .dt = impl::columns(input, part.channels, part.heads.count),
                                             .map = map,
                                             .out = part.leave.leave_target(arguments.y, leaving(part)),
                                             .states = part_of(initial_ssm, part.heads.begin, part.heads.count),
                                             .final_states = part_of(final_ssm, part.heads.begin, part.heads.count)},
                    documents.runs(), part.number);
    gone.push_back(part.leave.send_to_sequence(plan.side(part, exec), context, leaving(part), home(part)));
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
        conv_tensor<const T, Exec>(reinterpret_cast<const T*>(kept + saved.conv_out), plan.enter, channels);
  }
  tensors.dconv_out = conv_tensor<T, Exec>(second, plan.enter, channels);
  const auto leaving = flat<T, Exec>(first, plan.enter.heads_buffer_size());
  tensors.dinput = plan.enter.leave_target(arguments.dxBCdt, leaving);
  tensors.scratch = make_tensor<std::byte*, Exec, 1>(
      arguments.workspace.data() + static_cast<std::size_t>(blocks.elements(in_place)) * sizeof(T),
      {static_cast<std::int64_t>(blocks.scratch_bytes)});
  using A = accumulator_t<T>;
  const std::int64_t states = documents.documents();
  tensors.conv_states = plan.initial_conv(exec, arguments.initial.conv);
  tensors.states = plan.states.heads(arguments.initial.ssm);
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
