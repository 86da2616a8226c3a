// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/state_passing.hpp>

#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/core/row_loop.hpp>
#include <krait/parallel/operator_checks.hpp>
#include <krait/parallel/state_passing_memory.hpp>
#include <krait/parallel/state_passing_plan.hpp>

namespace krait {
namespace {

using impl::PieceStates;
using impl::SegmentEnd;

/// An end at which no document goes on hands on nothing; one at which a document goes on that has its other end in the
/// segment hands on nothing of what enters there.
template <class A, class Exec>
struct SealMaps {
  Tensor<A**, Exec> maps;
  Kokkos::View<const SegmentEnd*, typename Exec::memory_space> ends;
  std::int64_t state;
  KOKKOS_FUNCTION void operator()(std::int64_t slot, std::int64_t number) const {
    if (ends(slot) == SegmentEnd::carries) return;
    if (number >= state) {
      maps(slot, number) = -Kokkos::Experimental::infinity_v<A>;
    } else if (ends(slot) == SegmentEnd::closed) {
      maps(slot, number) = 0;
    }
  }
};

/// States of some heads, put among those of all.
template <class A, class Exec>
struct PlaceStates {
  Tensor<const A**, Exec> entering;  // (slots, state of the heads)
  A* to;                             // of the first of the heads
  std::int64_t state;                // of all heads
  KOKKOS_FUNCTION void operator()(std::int64_t slot, std::int64_t i) const { to[slot * state + i] = entering(slot, i); }
};

/// The same of gradients that arrive: they are those of the states that leave tail pieces.
template <class A, class Exec>
struct PlaceGradients {
  Tensor<const A**, Exec> leaving;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> tail_states;
  A* to;
  std::int64_t state;
  KOKKOS_FUNCTION void operator()(std::int64_t slot, std::int64_t i) const {
    if (tail_states(slot) >= 0) to[tail_states(slot) * state + i] = leaving(slot, i);
  }
};

template <class V, class Exec>
Tensor<V*, Exec> flat(std::byte* data, std::int64_t count) {
  return make_tensor<V*, Exec, 1>(reinterpret_cast<V*>(data), {count});
}

/// States of a convolution as they lie in messages: row by row of tokens.
template <class V, class Exec>
Tensor<V***, Exec> conv_states(std::byte* data, std::int64_t count, std::int64_t channels, std::int64_t taps) {
  return make_tensor<V***, Exec, 3>(reinterpret_cast<V*>(data), {count, channels, taps},
                                    {channels * taps, 1, channels});
}

template <class V, class Exec>
Tensor<V****, Exec> scan_states(std::byte* data, std::int64_t count, const SequenceOperatorConfig& config) {
  return make_tensor<V****, Exec, 4>(reinterpret_cast<V*>(data),
                                     {count, config.heads, config.head_dim, config.d_state});
}

/// A block's heads of such states.
template <class States, class A, class Exec>
States heads_of(const States& states, const impl::HeadBlock<A, Exec>& block) {
  if (is_absent(states)) return {};
  return Kokkos::subview(states, Kokkos::ALL, Kokkos::make_pair(block.first_head, block.first_head + block.shape.heads),
                         Kokkos::ALL, Kokkos::ALL);
}

/// Maps of segments: E and log alpha of a slot side by side.
template <Scalar T, class Exec>
impl::ConvScanMaps<T, Exec> map_slots(const Tensor<accumulator_t<T>**, Exec>& maps,
                                      const SequenceOperatorConfig& config, const impl::StateMapShape& shape,
                                      const Kokkos::View<const std::int64_t*, typename Exec::memory_space>& slots) {
  using A = accumulator_t<T>;
  const auto count = static_cast<std::int64_t>(maps.extent(0));
  return {.states = make_tensor<A****, Exec, 4>(maps.data(), {count, shape.heads, config.head_dim, config.d_state},
                                                {shape.slot(), shape.state_size, config.d_state, 1}),
          .log_alpha = make_tensor<A**, Exec, 2>(maps.data() + shape.state(), {count, shape.heads}, {shape.slot(), 1}),
          .slots = slots};
}

/// Of a block: where its maps lie among those of all.
template <Scalar T, class Exec>
Tensor<accumulator_t<T>**, Exec> maps_of(const impl::PassingPlan<T, Exec>& plan,
                                         const impl::HeadBlock<accumulator_t<T>, Exec>& block, std::byte* all) {
  return make_tensor<accumulator_t<T>**, Exec, 2>(reinterpret_cast<accumulator_t<T>*>(all + block.maps),
                                                  {plan.slots, block.shape.slot()});
}

template <class Exec>
Tensor<std::byte*, Exec> memory_of(std::byte* data, std::size_t bytes) {
  return flat<std::byte, Exec>(data, static_cast<std::int64_t>(bytes));
}

/// Whether any of these, InitialStates and such, is given.
template <class... States>
bool any_given(const States&... states) {
  return ((!is_absent(states.conv) || !is_absent(states.ssm)) || ...);
}

}  // namespace

template <Scalar T, class Exec>
StatePassing<T, Exec>::StatePassing(const SequenceOperatorConfig& config)
    : config_(config), agreed_(Strategy::state_passing, config) {
  config_.validate();
}

template <Scalar T, class Exec>
StatePassing<T, Exec>::~StatePassing() = default;

template <Scalar T, class Exec>
template <class Make>
auto StatePassing<T, Exec>::with_exchanges(const SequenceLayout& layout, std::int64_t batch, const Make& make) const {
  if (slot_.holds(layout, batch)) return make(static_cast<const Exchanges&>(slot_.plan()));
  return make(Exchanges(config_, layout, batch));
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::scratch_bytes(const SequenceLayout& layout, std::int64_t batch) const {
  if (slot_.holds(layout, batch)) return slot_.plan().conv_scan.backward_scratch_bytes();
  return impl::ConvScan<T, Exec>::backward_scratch_bytes(config_, impl::all_heads(config_), batch,
                                                         layout.local_length());
}

template <Scalar T, class Exec>
auto StatePassing<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) -> Plan& {
  if (!slot_.holds(layout, batch)) slot_.set(layout, batch, std::make_unique<Plan>(exec, config_, layout, batch));
  return slot_.plan();
}

template <Scalar T, class Exec>
OperatorRoom StatePassing<T, Exec>::room(const Communicator&, const SequenceLayout& layout, std::int64_t batch) const {
  // To convolve in place: the tensor itself, and nothing behind it.
  return {.xBCdt = batch * layout.local_length() * config_.input_width(), .y_over_x = true};
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::workspace_bytes(const Communicator&, const SequenceLayout& layout,
                                                   std::int64_t batch, bool overwrite_input) const {
  return with_exchanges(layout, batch, [&](const Exchanges& plan) {
    return impl::PassingBlocks<T, Exec>(config_, plan, overwrite_input).bytes;
  });
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::saved_bytes(const Communicator&, const SequenceLayout& layout, std::int64_t batch,
                                               Saving saving) const {
  return with_exchanges(
      layout, batch, [&](const Exchanges& plan) { return impl::PassingSaved<T, Exec>(config_, plan, saving).bytes; });
}

template <Scalar T, class Exec>
std::int64_t StatePassing<T, Exec>::backward_room(const Communicator&, const SequenceLayout&, std::int64_t,
                                                  Saving) const {
  return 0;
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::backward_workspace_bytes(const Communicator&, const SequenceLayout& layout,
                                                            std::int64_t batch, Saving saving, bool) const {
  return with_exchanges(layout, batch, [&](const Exchanges& plan) {
    return impl::PassingBackwardBlocks<T, Exec>(config_, plan, saving, scratch_bytes(layout, batch)).bytes;
  });
}

template <Scalar T, class Exec>
void StatePassing<T, Exec>::forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                    const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                                    const SequenceOperatorArguments<T, Exec>& arguments) {
  using A = accumulator_t<T>;
  const Kokkos::Profiling::ScopedRegion region("krait::StatePassing::forward");
  const std::string function = "krait::StatePassing::forward";
  const std::int64_t batch = documents.rows();
  const bool overwrites = arguments.overwrites_input();
  const bool with_states = any_given(arguments.initial, arguments.final);
  const PieceStates which = with_states ? PieceStates::all : PieceStates::heads;
  impl::SharedValue head_blocks{"the blocks of heads", 0};
  const auto check = [&] {
    layout.require_match(function, context.place());
    impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                              workspace_bytes(context, layout, batch, overwrites), room(context, layout, batch),
                              saved_bytes(context, layout, batch, arguments.saving));
    Plan& plan = plan_for(exec, layout, batch);
    const auto& runs = plan.cut(layout, documents, which).runs;
    if (with_states) plan.memory.reserve(exec, impl::PassingStates<T, Exec>(plan, runs.pieces.states(), which).bytes);
    head_blocks.value = static_cast<std::int64_t>(plan.blocks.size());
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  Plan& plan = slot_.plan();
  const auto& cut = plan.cut(layout, documents, which);
  const impl::ShardRuns& runs = cut.runs;
  const std::int64_t channels = config_.conv_channels();
  const std::int64_t taps = plan.halo.taps();

  const impl::PassingBlocks<T, Exec> blocks(config_, plan, overwrites);
  const impl::PassingSaved<T, Exec> saved(config_, plan, arguments.saving);
  const impl::PassingStates<T, Exec> pieces(plan, runs.pieces.states(), which);
  std::byte* const workspace = arguments.workspace.data();
  std::byte* const room = which == PieceStates::all ? plan.memory.template at<std::byte>(0) : workspace + blocks.states;
  std::byte* const kept = is_absent(arguments.saved) ? nullptr : arguments.saved.data();
  const bool keep_conv = kept != nullptr && arguments.saving == Saving::full;

  // The convolution, with what is before the pieces: tokens of other segments, and initial states.
  const auto conv_before = conv_states<T, Exec>(room + pieces.conv, pieces.count, channels, taps);
  const auto arrived = flat<T, Exec>(workspace + blocks.halo_in, plan.halo.incoming());
  Request halo = plan.halo.send(exec, context, impl::columns(Tensor<const T***, Exec>(arguments.xBCdt), 0, channels),
                                flat<T, Exec>(workspace + blocks.halo_out, plan.halo.outgoing()), arrived);
  cut.states.take_initial(exec, arguments.initial.conv, conv_before);
  halo.wait_on(exec);
  plan.halo.unpack(exec, arrived, cut.states.parts(), conv_before);
  impl::ConvScanTensors<T, Exec> tensors;
  tensors.input = arguments.xBCdt;
  if (overwrites && !keep_conv) {
    tensors.conv_out = impl::columns(arguments.xBCdt, 0, channels);
    tensors.conv_workspace = memory_of<Exec>(workspace + blocks.in_place, blocks.in_place_bytes);
  } else {
    tensors.conv_out = make_tensor<T***, Exec, 3>(
        reinterpret_cast<T*>(keep_conv ? kept + saved.conv_out : workspace + blocks.conv_out),
        {batch, layout.local_length(), channels});
  }
  tensors.out = arguments.y;
  tensors.conv_states = conv_before;
  if (!is_absent(arguments.final.conv))
    tensors.final_conv_states = conv_states<T, Exec>(room + pieces.final_conv, pieces.count, channels, taps);
  plan.conv_scan.convolve(exec, parameters, tensors, runs.pieces);
  cut.states.put_final(exec, tensors.final_conv_states, arguments.final.conv);

  // What the segments make of the state, and so what enters each. The states of a block of heads travel while the
  // blocks behind it are summarized and those before it are scanned.
  Tensor<A****, Exec> states;
  Tensor<A****, Exec> final_states;
  if (with_states) {
    states = scan_states<A, Exec>(room + pieces.scan, pieces.count, config_);
    cut.states.take_initial(exec, arguments.initial.ssm, states);
  }
  if (!is_absent(arguments.final.ssm))
    final_states = scan_states<A, Exec>(room + pieces.final_scan, pieces.count, config_);
  std::vector<impl::StateArrival<A, Exec>> arrivals;
  for (const auto& block : plan.blocks) {
    const auto maps = maps_of(plan, block, workspace + blocks.maps);
    tensors.states = heads_of(states, block);
    plan.conv_scan.summarize(exec, parameters, tensors, map_slots<T, Exec>(maps, config_, block.shape, cut.tail_slots),
                             runs.tails, block.number);
    impl::for_rows("krait::StatePassing::seal", exec, plan.slots, block.shape.slot(),
                   SealMaps<A, Exec>{maps, cut.ends, block.shape.state()});
    arrivals.push_back(block.ascending.post(
        plan.side(block, exec), context, maps,
        memory_of<Exec>(workspace + blocks.exchange + block.ascending_memory, block.ascending.workspace_bytes())));
  }
  if (kept != nullptr)
    Kokkos::deep_copy(exec, flat<T, Exec>(kept + saved.conv_states, plan.halo.states()),
                      flat<T, Exec>(room + pieces.conv, plan.halo.states()));
  for (const auto& block : plan.blocks) {
    auto& [entering, request] = arrivals[static_cast<std::size_t>(block.number)];
    request.wait_on(exec);
    const auto place = [&, &entering = entering](const char* label, std::byte* all) {
      A* const first = reinterpret_cast<A*>(all) + block.first_head * block.shape.state_size;
      impl::for_rows(label, exec, plan.slots, block.shape.state(),
                     PlaceStates<A, Exec>{entering, first, plan.shape.state()});
    };
    if (kept != nullptr) place("krait::StatePassing::save_states", kept + saved.states);
    if (with_states) {
      place("krait::StatePassing::place_states", room + pieces.scan);
      tensors.states = heads_of(states, block);
    } else {
      tensors.states = make_tensor<const A****, Exec, 4>(
          entering.data(), {plan.slots, block.shape.heads, config_.head_dim, config_.d_state});
    }
    tensors.final_states = heads_of(final_states, block);
    plan.conv_scan.scan(exec, parameters, tensors, runs.pieces, block.number);
  }
  cut.states.put_final(exec, final_states, arguments.final.ssm);
}

template <Scalar T, class Exec>
void StatePassing<T, Exec>::backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                     const DocumentMap& documents,
                                     const SequenceOperatorParameters<T, Exec>& parameters,
                                     const SequenceOperatorGradients<T, Exec>& gradients,
                                     const SequenceOperatorBackwardArguments<T, Exec>& arguments) {
  using A = accumulator_t<T>;
  const Kokkos::Profiling::ScopedRegion region("krait::StatePassing::backward");
  const std::string function = "krait::StatePassing::backward";
  const std::int64_t batch = documents.rows();
  const bool with_states = any_given(arguments.initial, arguments.dfinal, arguments.dinitial);
  const PieceStates which = with_states ? PieceStates::all : PieceStates::open;
  impl::SharedValue head_blocks{"the blocks of heads", 0};
  const auto check = [&] {
    layout.require_match(function, context.place());
    impl::check_operator_backward(function, config_, context, layout, documents, parameters, gradients, arguments,
                                  backward_workspace_bytes(context, layout, batch, arguments.saving, false), 0,
                                  saved_bytes(context, layout, batch, arguments.saving));
    Plan& plan = plan_for(exec, layout, batch);
    const auto& runs = plan.cut(layout, documents, which).runs;
    if (with_states)
      plan.memory.reserve(exec, impl::PassingStateGradients<T, Exec>(plan, runs.pieces.states(), which).bytes);
    plan.conv_scan.prepare_backward(exec);
    head_blocks.value = static_cast<std::int64_t>(plan.blocks.size());
  };
  agreed_(context, function.c_str(), layout, documents, check, &head_blocks);
  Plan& plan = slot_.plan();
  const auto& cut = plan.cut(layout, documents, which);
  const impl::ShardRuns& runs = cut.runs;
  const std::int64_t channels = config_.conv_channels();
  const std::int64_t taps = plan.halo.taps();
  const std::int64_t slots = plan.slots;

  const impl::PassingBackwardBlocks<T, Exec> blocks(config_, plan, arguments.saving,
                                                    plan.conv_scan.backward_scratch_bytes());
  const impl::PassingSaved<T, Exec> saved(config_, plan, arguments.saving);
  const impl::PassingStateGradients<T, Exec> pieces(plan, runs.pieces.states(), which);
  std::byte* const workspace = arguments.workspace.data();
  std::byte* const room = which == PieceStates::all ? plan.memory.template at<std::byte>(0) : workspace + blocks.states;
  const std::byte* const kept = arguments.saved.data();
  const auto conv = [&](auto* data) {
    using V = std::remove_pointer_t<decltype(data)>;
    return make_tensor<V***, Exec, 3>(data, {batch, layout.local_length(), channels});
  };
  const auto restore = [&exec](const auto& to, const std::byte* from) {
    using V = typename std::remove_cvref_t<decltype(to)>::value_type;
    const auto count = static_cast<std::int64_t>(to.extent(0));
    Kokkos::deep_copy(exec, to, make_tensor<const V*, Exec, 1>(reinterpret_cast<const V*>(from), {count}));
  };

  // What had entered the pieces, and the gradients of what leaves them as far as it is known here.
  const auto conv_before = conv_states<T, Exec>(room + pieces.conv, pieces.count, channels, taps);
  const auto states = scan_states<A, Exec>(room + pieces.scan, pieces.count, config_);
  const auto dfinal = scan_states<A, Exec>(room + pieces.dfinal_scan, pieces.count, config_);
  cut.states.take_initial(exec, arguments.initial.conv, conv_before);
  restore(flat<T, Exec>(room + pieces.conv, plan.halo.states()), kept + saved.conv_states);
  cut.states.take_initial(exec, arguments.initial.ssm, states);
  restore(flat<A, Exec>(room + pieces.scan, slots * plan.shape.state()), kept + saved.states);
  cut.states.take_final_gradients(exec, arguments.dfinal.ssm, dfinal);

  // The convolution again, unless it was saved, by the same runs and states: first C alone, which is all that summaries
  // need, the rest while gradients of states travel.
  impl::ConvScanBackwardTensors<T, Exec> tensors;
  tensors.input = arguments.xBCdt;
  tensors.conv_states = conv_before;
  tensors.states = states;
  const std::int64_t first_of_C = channels - config_.groups * config_.d_state;
  const bool again = arguments.saving == Saving::lean;
  const auto convolve = [&](std::int64_t begin, std::int64_t end) {
    impl::ConvScanTensors<T, Exec> convolution;
    convolution.input = arguments.xBCdt;
    convolution.conv_out = conv(reinterpret_cast<T*>(workspace + blocks.conv_out));
    convolution.conv_states =
        Tensor<T***, Exec>(Kokkos::subview(conv_before, Kokkos::ALL, Kokkos::make_pair(begin, end), Kokkos::ALL));
    plan.conv_scan.convolve(exec, parameters, convolution, runs.pieces, begin, end - begin);
  };
  if (again) {
    tensors.conv_out = conv(reinterpret_cast<const T*>(workspace + blocks.conv_out));
    convolve(first_of_C, channels);
  } else {
    tensors.conv_out = conv(reinterpret_cast<const T*>(kept + saved.conv_out));
    plan.conv_scan.take_parameters(exec, parameters);
  }
  tensors.dout = arguments.dy;
  tensors.dconv_out = conv(reinterpret_cast<T*>(workspace + blocks.dconv_out));
  tensors.dinput = arguments.dxBCdt;
  tensors.scratch = flat<std::byte, Exec>(workspace + blocks.scratch, static_cast<std::int64_t>(blocks.scratch_bytes));

  // What the segments make of gradients of the state, and so what comes from behind each.
  std::vector<impl::StateArrival<A, Exec>> arrivals;
  for (const auto& block : plan.blocks) {
    const auto maps = maps_of(plan, block, workspace + blocks.maps);
    tensors.dfinal_states = heads_of(dfinal, block);
    plan.conv_scan.summarize_backward(exec, parameters, tensors,
                                      map_slots<T, Exec>(maps, config_, block.shape, cut.head_slots), runs.heads,
                                      block.number);
    impl::for_rows("krait::StatePassing::seal_gradients", exec, slots, block.shape.slot(),
                   SealMaps<A, Exec>{maps, cut.begins, block.shape.state()});
    arrivals.push_back(block.descending.post(
        plan.side(block, exec), context, maps,
        memory_of<Exec>(workspace + blocks.exchange + block.descending_memory, block.descending.workspace_bytes())));
  }
  if (again) convolve(0, first_of_C);
  for (const auto& block : plan.blocks) {
    auto& [leaving, request] = arrivals[static_cast<std::size_t>(block.number)];
    request.wait_on(exec);
    impl::for_rows(
        "krait::StatePassing::place_gradients", exec, slots, block.shape.state(),
        PlaceGradients<A, Exec>{leaving, cut.tail_states, heads_of(dfinal, block).data(), plan.shape.state()});
  }
  tensors.dfinal_states = dfinal;
  if (!is_absent(arguments.dinitial.ssm))
    tensors.dstates = scan_states<A, Exec>(room + pieces.dscan, pieces.count, config_);
  plan.conv_scan.scan_backward(exec, parameters, gradients, tensors, runs.pieces);
  cut.states.put_initial_gradients(exec, tensors.dstates, arguments.dinitial.ssm);

  // What the first windows of the segments owe to the tokens before them, and what is owed to tokens here.
  const auto firsts = [&](std::size_t block) {
    return make_tensor<T***, Exec, 3>(reinterpret_cast<T*>(workspace + block), {slots, taps, channels});
  };
  const auto x = firsts(blocks.firsts);
  const auto dout = firsts(blocks.dfirsts);
  const auto dhalo = conv_states<A, Exec>(workspace + blocks.dhalo, slots, channels, taps);
  const auto back = flat<A, Exec>(workspace + blocks.halo_in, plan.halo.outgoing());
  const auto dfinal_conv = conv_states<A, Exec>(room + pieces.dfinal_conv, pieces.count, channels, taps);
  plan.halo.first_tokens(exec, impl::columns(arguments.xBCdt, 0, channels), x);
  plan.halo.first_tokens(exec, tensors.dconv_out, dout);
  Kokkos::deep_copy(exec, dhalo, A(0));
  plan.conv_scan.input_gradients(exec, parameters,
                                 {.x = x,
                                  .states = conv_states<const T, Exec>(room + pieces.conv, slots, channels, taps),
                                  .dout = dout,
                                  .dx = firsts(blocks.dx),
                                  .dstates = dhalo},
                                 cut.first_runs);
  Request halo = plan.halo.send_back(exec, context, dhalo, cut.states.parts(),
                                     flat<A, Exec>(workspace + blocks.halo_out, plan.halo.incoming()), back);
  cut.states.take_final_gradients(exec, arguments.dfinal.conv, dfinal_conv);
  halo.wait_on(exec);
  plan.halo.sum(exec, back, cut.tail_states, dfinal_conv);
  tensors.dfinal_conv_states = dfinal_conv;
  if (!is_absent(arguments.dinitial.conv))
    tensors.dconv_states = conv_states<A, Exec>(room + pieces.dconv, pieces.count, channels, taps);
  plan.conv_scan.convolve_backward(exec, parameters, gradients, tensors, runs.pieces);
  cut.states.put_initial_gradients(exec, tensors.dconv_states, arguments.dinitial.conv);
}

#define KRAIT_INSTANTIATE(T, EXEC) template class StatePassing<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
