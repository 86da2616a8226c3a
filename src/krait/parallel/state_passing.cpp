// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/state_passing.hpp>

#include <optional>
#include <utility>

#include <krait/core/instantiate.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/conv_halo.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/operator_checks.hpp>
#include <krait/parallel/planner.hpp>
#include <krait/parallel/segment_chain.hpp>
#include <krait/parallel/shard_runs.hpp>
#include <krait/parallel/state_exchange.hpp>

namespace krait {
namespace {

using impl::ChainDirection;
using impl::SegmentEnd;

template <class Exec>
using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;

/// All heads of a configuration: what a rank of this strategy works on.
HeadPartition all_heads(const SequenceOperatorConfig& config) {
  return {Place{}, {config.heads, config.head_dim, config.groups, config.d_state}, Divisibility::strict};
}

/// The exchange that is asked for, or the one that is expected to be the fastest.
template <Scalar T>
StateExchange exchange_for(const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows) {
  if (config.state_exchange != StateExchange::automatic) return config.state_exchange;
  return Planner()
      .choose(workload_of<T>(config, layout, rows), Strategy::state_passing, StateExchange::automatic)
      .best()
      .exchange;
}

impl::StateMapShape map_shape(const SequenceOperatorConfig& config, std::int64_t rows) {
  return {.rows = rows, .heads = config.heads, .state_size = config.head_dim * config.d_state};
}

/// An end at which no document goes on hands on nothing; one at which a document goes on that has its other end in the
/// segment hands on nothing of what enters there.
template <class A, class Exec>
struct SealMaps {
  Tensor<A**, Exec> maps;
  Kokkos::View<const SegmentEnd*, typename Exec::memory_space> ends;
  std::int64_t state, slot_size;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t slot = i / slot_size;
    const std::int64_t number = i % slot_size;
    if (number >= state) {
      if (ends(slot) != SegmentEnd::carries) maps(slot, number) = -Kokkos::Experimental::infinity_v<A>;
    } else if (ends(slot) == SegmentEnd::closed) {
      maps(slot, number) = 0;
    }
  }
};

/// From slots to the states of ShardRuns::backward: what enters head pieces, and the gradients of what leaves tail
/// pieces, which have numbers of their own unless they are head pieces too.
template <class A, class Exec>
struct PlaceStates {
  Tensor<const A**, Exec> entering, leaving;  // (slots, state)
  Kokkos::View<const SegmentEnd*, typename Exec::memory_space> ends;
  Tensor<A**, Exec> states, dstates;  // (2 slots, state)
  std::int64_t slots, state;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t slot = i / state;
    const std::int64_t number = i % state;
    states(slot, number) = entering(slot, number);
    states(slots + slot, number) = 0;
    dstates(slot, number) = ends(slot) == SegmentEnd::carries ? leaving(slot, number) : A(0);
    dstates(slots + slot, number) = ends(slot) == SegmentEnd::opens ? leaving(slot, number) : A(0);
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

/// \throws ConfigError when a tensor of states is given
template <class... States>
void refuse_states(const std::string& function, const States&... states) {
  KRAIT_REQUIRE(ConfigError, ((is_absent(states.conv) && is_absent(states.ssm)) && ...), function,
                ": states of documents are given, expected none: this strategy begins every document at zero");
}

}  // namespace

/// What follows from layout and batch alone.
template <Scalar T, class Exec>
struct StatePassing<T, Exec>::Exchanges {
  using A = accumulator_t<T>;

  impl::SegmentChain chain;
  impl::ConvHalo<T, Exec> halo;
  impl::StateMapShape shape;
  StateExchange form;
  impl::StateExchangePlan<A, Exec> ascending, descending;
  std::int64_t places;  ///< tokens of all rows here
  std::int64_t slots;   ///< segments here, in every row

  Exchanges(const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows)
      : chain(layout),
        halo(chain, layout, rows, config.conv_channels(), config.d_conv),
        shape(map_shape(config, rows)),
        form(exchange_for<T>(config, layout, rows)),
        ascending(form, chain.owners(), layout.place(), ChainDirection::ascending, shape),
        descending(form, chain.owners(), layout.place(), ChainDirection::descending, shape),
        places(rows * layout.local_length()),
        slots(ascending.local_segments() * rows) {}
};

template <Scalar T, class Exec>
struct StatePassing<T, Exec>::Plan : Exchanges {
  template <class V>
  using Table = Kokkos::View<const V*, typename Exec::memory_space>;

  /// What follows from the documents.
  struct Cut {
    DocumentMap documents;
    impl::ShardRuns runs;
    Table<SegmentEnd> begins, ends;
    Table<std::int64_t> document_begins, tail_states;
    SequenceRuns first_runs;

    Cut(const Exchanges& plan, const SequenceLayout& layout, const DocumentMap& map)
        : documents(map),
          runs(plan.chain, layout, map),
          begins(upload("begins", runs.begins)),
          ends(upload("ends", runs.ends)),
          document_begins(upload("document_begins", runs.document_begins)),
          tail_states(upload("tail_states", runs.tail_states)),
          first_runs(plan.halo.first_runs(runs.heads)) {}

    template <class V>
    static Table<V> upload(const char* name, const std::vector<V>& table) {
      return impl::upload_table<typename Exec::memory_space>(std::string("krait::StatePassing::") + name, table);
    }
  };

  impl::ConvScan<T, Exec> conv_scan;
  std::optional<Cut> cut;

  Plan(const Exec& exec, const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t rows)
      : Exchanges(config, layout, rows), conv_scan(exec, config, all_heads(config), rows, layout.local_length()) {}

  void set_documents(const SequenceLayout& layout, const DocumentMap& documents) {
    if (!cut || !impl::same_documents(cut->documents, documents)) cut.emplace(*this, layout, documents);
  }
};

/// Where the parts of a forward's workspace lie, in bytes.
template <Scalar T, class Exec>
struct StatePassing<T, Exec>::Blocks {
  std::size_t conv_out, conv_states, halo_out, halo_in, maps, exchange, bytes;

  Blocks(const SequenceOperatorConfig& config, const Exchanges& plan) {
    WorkspaceLayout space;
    conv_out = space.add<T>(plan.places * config.conv_channels());
    conv_states = space.add<T>(plan.halo.states());
    halo_out = space.add<T>(plan.halo.outgoing());
    halo_in = space.add<T>(plan.halo.incoming());
    maps = space.add<accumulator_t<T>>(plan.slots * plan.shape.slot());
    exchange = space.add<std::byte>(static_cast<std::int64_t>(plan.ascending.workspace_bytes()));
    bytes = space.bytes();
  }
};

template <Scalar T, class Exec>
struct StatePassing<T, Exec>::SavedBlocks {
  std::size_t states, conv_states, conv_out = 0, bytes;

  SavedBlocks(const SequenceOperatorConfig& config, const Exchanges& plan, Saving saving) {
    WorkspaceLayout space;
    states = space.add<accumulator_t<T>>(plan.slots * plan.shape.state());
    conv_states = space.add<T>(plan.halo.states());
    if (saving == Saving::full) conv_out = space.add<T>(plan.places * config.conv_channels());
    bytes = space.bytes();
  }
};

/// The same of a backward. States and their gradients have two numbers a slot, see ShardRuns::backward.
template <Scalar T, class Exec>
struct StatePassing<T, Exec>::BackwardBlocks {
  std::size_t conv_out = 0, dconv_out, scratch, states, dstates, conv_states, dfinal_conv_states, dconv_states, firsts,
              dfirsts, halo_out, halo_in, maps, exchange, bytes;
  std::size_t scratch_bytes;

  BackwardBlocks(const SequenceOperatorConfig& config, const Exchanges& plan, Saving saving, std::size_t scratch_size)
      : scratch_bytes(scratch_size) {
    using A = accumulator_t<T>;
    WorkspaceLayout space;
    if (saving == Saving::lean) conv_out = space.add<T>(plan.places * config.conv_channels());
    dconv_out = space.add<T>(plan.places * config.conv_channels());
    scratch = space.add<std::byte>(static_cast<std::int64_t>(scratch_bytes));
    states = space.add<A>(2 * plan.slots * plan.shape.state());
    dstates = space.add<A>(2 * plan.slots * plan.shape.state());
    conv_states = space.add<T>(2 * plan.halo.states());
    dfinal_conv_states = space.add<A>(2 * plan.halo.states());
    dconv_states = space.add<A>(plan.halo.states());
    firsts = space.add<T>(plan.halo.states());
    dfirsts = space.add<T>(2 * plan.halo.states());
    halo_out = space.add<A>(plan.halo.incoming());
    halo_in = space.add<A>(plan.halo.outgoing());
    maps = space.add<A>(plan.slots * plan.shape.slot());
    exchange = space.add<std::byte>(static_cast<std::int64_t>(plan.descending.workspace_bytes()));
    bytes = space.bytes();
  }
};

template <Scalar T, class Exec>
StatePassing<T, Exec>::StatePassing(const SequenceOperatorConfig& config) : config_(config) {
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
  return impl::ConvScan<T, Exec>::backward_scratch_bytes(config_, all_heads(config_), batch, layout.local_length());
}

template <Scalar T, class Exec>
auto StatePassing<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) -> Plan& {
  if (!slot_.holds(layout, batch)) slot_.set(layout, batch, std::make_unique<Plan>(exec, config_, layout, batch));
  return slot_.plan();
}

template <Scalar T, class Exec>
OperatorRoom StatePassing<T, Exec>::room(const Communicator&, const SequenceLayout&, std::int64_t) const {
  return {};
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::workspace_bytes(const Communicator&, const SequenceLayout& layout,
                                                   std::int64_t batch, bool) const {
  return with_exchanges(layout, batch, [this](const Exchanges& plan) { return Blocks(config_, plan).bytes; });
}

template <Scalar T, class Exec>
std::size_t StatePassing<T, Exec>::saved_bytes(const Communicator&, const SequenceLayout& layout, std::int64_t batch,
                                               Saving saving) const {
  return with_exchanges(layout, batch, [&](const Exchanges& plan) { return SavedBlocks(config_, plan, saving).bytes; });
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
    return BackwardBlocks(config_, plan, saving, scratch_bytes(layout, batch)).bytes;
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
  agreed_(context, function.c_str(), layout, documents, [&] {
    layout.require_match(function, context.place());
    refuse_states(function, arguments.initial, arguments.final);
    impl::check_operator_call(function, config_, context, layout, documents, parameters, arguments,
                              workspace_bytes(context, layout, batch, false), {},
                              saved_bytes(context, layout, batch, arguments.saving));
    plan_for(exec, layout, batch).set_documents(layout, documents);
  });
  const Plan& plan = slot_.plan();
  const impl::ShardRuns& runs = plan.cut->runs;
  const std::int64_t channels = config_.conv_channels();
  const std::int64_t heads = config_.heads;
  const std::int64_t state = plan.shape.state();
  const std::int64_t slot = plan.shape.slot();

  const Blocks blocks(config_, plan);
  const SavedBlocks saved(config_, plan, arguments.saving);
  std::byte* const workspace = arguments.workspace.data();
  std::byte* const kept = is_absent(arguments.saved) ? nullptr : arguments.saved.data();
  const bool keep_conv = kept != nullptr && arguments.saving == Saving::full;
  const auto halo_states =
      conv_states<T, Exec>(kept != nullptr ? kept + saved.conv_states : workspace + blocks.conv_states, plan.slots,
                           channels, plan.halo.taps());
  impl::ConvScanTensors<T, Exec> tensors;
  tensors.input = arguments.xBCdt;
  tensors.conv_out =
      make_tensor<T***, Exec, 3>(reinterpret_cast<T*>(keep_conv ? kept + saved.conv_out : workspace + blocks.conv_out),
                                 {batch, layout.local_length(), channels});
  tensors.out = arguments.y;
  if (plan.halo.states() > 0) tensors.conv_states = halo_states;

  const auto arrived = flat<T, Exec>(workspace + blocks.halo_in, plan.halo.incoming());
  plan.halo
      .send(exec, context, impl::columns(Tensor<const T***, Exec>(arguments.xBCdt), 0, channels),
            flat<T, Exec>(workspace + blocks.halo_out, plan.halo.outgoing()), arrived)
      .wait_on(exec);
  plan.halo.unpack(exec, arrived, plan.cut->document_begins, halo_states);
  plan.conv_scan.convolve(exec, parameters, tensors, runs.forward);

  A* const map_data = reinterpret_cast<A*>(workspace + blocks.maps);
  const auto maps = make_tensor<A**, Exec, 2>(map_data, {plan.slots, slot});
  plan.conv_scan.summarize(
      exec, parameters, tensors,
      {.states = make_tensor<A****, Exec, 4>(map_data, {plan.slots, heads, config_.head_dim, config_.d_state},
                                             {slot, plan.shape.state_size, config_.d_state, 1}),
       .log_alpha = make_tensor<A**, Exec, 2>(map_data + state, {plan.slots, heads}, {slot, 1})},
      runs.tails);
  Kokkos::parallel_for("krait::StatePassing::seal", Range<Exec>(exec, 0, plan.slots * slot),
                       SealMaps<A, Exec>{maps, plan.cut->ends, state, slot});
  auto arrival = plan.ascending.post(
      exec, context, maps,
      flat<std::byte, Exec>(workspace + blocks.exchange, static_cast<std::int64_t>(plan.ascending.workspace_bytes())));
  arrival.request.wait_on(exec);

  if (kept != nullptr)
    Kokkos::deep_copy(exec, make_tensor<A**, Exec, 2>(reinterpret_cast<A*>(kept + saved.states), {plan.slots, state}),
                      arrival.entering);
  if (plan.slots > 0)
    tensors.states = make_tensor<const A****, Exec, 4>(arrival.entering.data(),
                                                       {plan.slots, heads, config_.head_dim, config_.d_state});
  plan.conv_scan.scan(exec, parameters, tensors, runs.forward);
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
  agreed_(context, function.c_str(), layout, documents, [&] {
    layout.require_match(function, context.place());
    refuse_states(function, arguments.initial, arguments.dfinal, arguments.dinitial);
    impl::check_operator_backward(function, config_, context, layout, documents, parameters, gradients, arguments,
                                  backward_workspace_bytes(context, layout, batch, arguments.saving, false), 0,
                                  saved_bytes(context, layout, batch, arguments.saving));
    Plan& plan = plan_for(exec, layout, batch);
    plan.set_documents(layout, documents);
    plan.conv_scan.prepare_backward(exec);
  });
  const Plan& plan = slot_.plan();
  const impl::ShardRuns& runs = plan.cut->runs;
  const std::int64_t channels = config_.conv_channels();
  const std::int64_t heads = config_.heads;
  const std::int64_t state = plan.shape.state();
  const std::int64_t slot = plan.shape.slot();
  const std::int64_t slots = plan.slots;
  const std::int64_t taps = plan.halo.taps();

  const BackwardBlocks blocks(config_, plan, arguments.saving, plan.conv_scan.backward_scratch_bytes());
  const SavedBlocks saved(config_, plan, arguments.saving);
  std::byte* const workspace = arguments.workspace.data();
  const std::byte* const kept = arguments.saved.data();
  const auto conv = [&](auto* data) {
    using V = std::remove_pointer_t<decltype(data)>;
    return make_tensor<V***, Exec, 3>(data, {batch, layout.local_length(), channels});
  };
  const auto all_states = [&](std::size_t block) {
    return make_tensor<A**, Exec, 2>(reinterpret_cast<A*>(workspace + block), {2 * slots, state});
  };
  const auto with_heads = [&](const auto& states) {
    return make_tensor<const A****, Exec, 4>(states.data(), {2 * slots, heads, config_.head_dim, config_.d_state});
  };

  // The convolution again, unless it was saved, by the same runs and states.
  const auto halo_states = conv_states<T, Exec>(workspace + blocks.conv_states, 2 * slots, channels, taps);
  const std::int64_t halo_elements = plan.halo.states();
  Kokkos::deep_copy(
      exec, flat<T, Exec>(workspace + blocks.conv_states, halo_elements),
      make_tensor<const T*, Exec, 1>(reinterpret_cast<const T*>(kept + saved.conv_states), {halo_elements}));
  Kokkos::deep_copy(exec,
                    flat<T, Exec>(workspace + blocks.conv_states + static_cast<std::size_t>(halo_elements) * sizeof(T),
                                  halo_elements),
                    T(0));
  impl::ConvScanBackwardTensors<T, Exec> tensors;
  tensors.input = arguments.xBCdt;
  if (halo_elements > 0) tensors.conv_states = halo_states;
  if (arguments.saving == Saving::full) {
    tensors.conv_out = conv(reinterpret_cast<const T*>(kept + saved.conv_out));
  } else {
    const auto conv_out = conv(reinterpret_cast<T*>(workspace + blocks.conv_out));
    plan.conv_scan.convolve(
        exec, parameters,
        {.input = arguments.xBCdt, .map = {}, .conv_out = conv_out, .out = {}, .conv_states = tensors.conv_states},
        runs.backward);
    tensors.conv_out = conv_out;
  }
  tensors.dout = arguments.dy;
  tensors.dconv_out = conv(reinterpret_cast<T*>(workspace + blocks.dconv_out));
  tensors.dinput = arguments.dxBCdt;
  tensors.scratch = flat<std::byte, Exec>(workspace + blocks.scratch, static_cast<std::int64_t>(blocks.scratch_bytes));

  A* const map_data = reinterpret_cast<A*>(workspace + blocks.maps);
  const auto maps = make_tensor<A**, Exec, 2>(map_data, {slots, slot});
  plan.conv_scan.summarize_backward(
      exec, parameters, tensors,
      {.states = make_tensor<A****, Exec, 4>(map_data, {slots, heads, config_.head_dim, config_.d_state},
                                             {slot, plan.shape.state_size, config_.d_state, 1}),
       .log_alpha = make_tensor<A**, Exec, 2>(map_data + state, {slots, heads}, {slot, 1})},
      runs.heads);
  Kokkos::parallel_for("krait::StatePassing::seal_gradients", Range<Exec>(exec, 0, slots * slot),
                       SealMaps<A, Exec>{maps, plan.cut->begins, state, slot});
  auto arrival = plan.descending.post(
      exec, context, maps,
      flat<std::byte, Exec>(workspace + blocks.exchange, static_cast<std::int64_t>(plan.descending.workspace_bytes())));
  arrival.request.wait_on(exec);

  const auto states = all_states(blocks.states);
  const auto dstates = all_states(blocks.dstates);
  Kokkos::parallel_for("krait::StatePassing::place", Range<Exec>(exec, 0, slots * state),
                       PlaceStates<A, Exec>{make_tensor<const A**, Exec, 2>(
                                                reinterpret_cast<const A*>(kept + saved.states), {slots, state}),
                                            arrival.entering, plan.cut->ends, states, dstates, slots, state});
  if (slots > 0) {
    tensors.states = with_heads(states);
    tensors.dfinal_states = with_heads(dstates);
  }
  plan.conv_scan.scan_backward(exec, parameters, gradients, tensors, runs.backward);

  // What the first windows of the segments owe to the tokens before them, and what is owed to tokens here.
  const auto firsts = [&](std::size_t block, std::int64_t number) {
    return make_tensor<T***, Exec, 3>(reinterpret_cast<T*>(workspace + block) + number * halo_elements,
                                      {slots, taps, channels});
  };
  const auto x = firsts(blocks.firsts, 0);
  const auto dout = firsts(blocks.dfirsts, 0);
  const auto dhalo = conv_states<A, Exec>(workspace + blocks.dconv_states, slots, channels, taps);
  const auto back = flat<A, Exec>(workspace + blocks.halo_in, plan.halo.outgoing());
  const auto dfinal = conv_states<A, Exec>(workspace + blocks.dfinal_conv_states, 2 * slots, channels, taps);
  plan.halo.first_tokens(exec, impl::columns(arguments.xBCdt, 0, channels), x);
  plan.halo.first_tokens(exec, tensors.dconv_out, dout);
  Kokkos::deep_copy(exec, dhalo, A(0));
  plan.conv_scan.input_gradients(
      exec, parameters,
      {.x = x,
       .states = conv_states<const T, Exec>(workspace + blocks.conv_states, slots, channels, taps),
       .dout = dout,
       .dx = firsts(blocks.dfirsts, 1),
       .dstates = dhalo},
      plan.cut->first_runs);
  plan.halo
      .send_back(exec, context, dhalo, plan.cut->document_begins,
                 flat<A, Exec>(workspace + blocks.halo_out, plan.halo.incoming()), back)
      .wait_on(exec);
  if (halo_elements > 0) {
    plan.halo.sum(exec, back, plan.cut->tail_states, dfinal);
    tensors.dfinal_conv_states = dfinal;
  }
  plan.conv_scan.convolve_backward(exec, parameters, gradients, tensors, runs.backward);
}

#define KRAIT_INSTANTIATE(T, EXEC) template class StatePassing<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
