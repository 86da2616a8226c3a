// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_mixer.hpp>

#include <algorithm>
#include <string>
#include <utility>

#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/gated_rms_norm_backward.hpp>
#include <krait/ops/projection.hpp>
#include <krait/ops/projection_backward.hpp>
#include <krait/parallel/agreement.hpp>
#include <krait/parallel/operator_checks.hpp>

namespace krait {

/// Where the intermediates of a forward without a backward lie in the workspace. `xBCdt` and `y` double as workspace of
/// the operator. What follows it goes by blocks of tokens, whose gate lies where the operator has left room: in
/// `xBCdt`, or, when y is there, in the operator's workspace.
template <Scalar T, class Exec>
struct MambaMixer<T, Exec>::Buffers {
  OperatorRoom room;
  std::size_t xBCdt = 0;
  std::size_t y = 0;  // if not in xBCdt
  std::size_t operator_offset = 0;
  std::size_t operator_bytes = 0;
  std::int64_t block = 0;  // tokens
  std::size_t gate = 0;
  std::size_t partial = 0;  // with tensor ranks: this rank's addend of the output, and the sum
  std::size_t sum = 0;
  std::size_t bytes = 0;
};

/// The parts of MambaActivations.
template <Scalar T, class Exec>
struct MambaMixer<T, Exec>::KeptTensors {
  Output projection;  ///< z | x | B | C | dt
  Output z;           ///< its columns
  Output xBCdt;
  Output y;
  Tensor<accumulator_t<T>***, Exec> rstd;
  Tensor<std::byte*, Exec> saved;
};

/// Where the intermediates of a training forward, and of its backward, lie in the workspace. Steps that follow one
/// another share `steps`, in which the gated output of the norm has the front as long as it is needed.
///
///     forward    operator; gated
///     backward   gradient of out_proj's input -> dy; norm: dy -> dy, gated, dz; out_proj's weight; operator: dy, steps
///                -> dxBCdt; in_proj
template <Scalar T, class Exec>
struct MambaMixer<T, Exec>::TrainingBuffers {
  std::size_t dprojection = 0;  ///< (b, l, projection_width)
  std::size_t dy = 0;           ///< (b, l, d_inner), and room for the operator
  std::int64_t dy_room = 0;
  std::size_t steps = 0;
  std::size_t after_gated = 0;  ///< scratch of the steps that need the gated output
  std::size_t scratch_bytes = 0;
  std::size_t operator_bytes = 0;  ///< of the backward
  std::size_t forward_bytes = 0;   ///< of the forward's operator
  std::size_t in_proj_bytes = 0;
  std::size_t sum = 0;  ///< with tensor ranks: this rank's addend lies at `steps`, the sum here
  std::size_t bytes = 0;
};

namespace {

constexpr const char* name_of_forward = "krait::MambaMixer::forward";
constexpr const char* name_of_backward = "krait::MambaMixer::backward";

/// Position i of a row-major copy of a (b, l, d) tensor.
template <class View>
KOKKOS_INLINE_FUNCTION auto& element(const View& view, std::int64_t i) {
  const auto tokens = static_cast<std::int64_t>(view.extent(1));
  const auto width = static_cast<std::int64_t>(view.extent(2));
  return view(i / width / tokens, i / width % tokens, i % width);
}

template <class A, class T, class Exec>
struct CopyToFlat {
  Tensor<const T***, Exec> from;
  A* to;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { to[i] = static_cast<A>(element(from, i)); }
};

template <class A, class T, class Exec>
struct CopyFromFlat {
  const A* from;
  Tensor<T***, Exec> to;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const { element(to, i) = static_cast<T>(from[i]); }
};

template <class Exec>
Tensor<std::byte*, Exec> bytes_at(const Workspace<Exec>& workspace, std::size_t offset, std::size_t bytes) {
  return make_tensor<std::byte*, Exec, 1>(workspace.template at<std::byte>(offset), {static_cast<std::int64_t>(bytes)});
}

/// Tokens of a (b, l, d) tensor.
template <class View>
View tokens_of(const View& view, std::int64_t first, std::int64_t count) {
  return Kokkos::subview(view, Kokkos::ALL, Kokkos::make_pair(first, first + count), Kokkos::ALL);
}

template <class View>
auto rows_of(const View& view, std::int64_t begin, std::int64_t count) {
  if constexpr (View::rank() == 2)
    return Kokkos::subview(view, Kokkos::make_pair(begin, begin + count), Kokkos::ALL);
  else
    return Kokkos::subview(view, Kokkos::make_pair(begin, begin + count));
}

}  // namespace

template <Scalar T, class Exec>
MambaMixer<T, Exec>::MambaMixer(const Exec& exec, const MambaConfig& config, Parallel parallel,
                                std::shared_ptr<Workspace<Exec>> workspace)
    : config_((config.validate(parallel.tensor.size()), config)),
      parallel_(std::move(parallel)),
      parameters_(exec, config_, parallel_.tensor.place()),
      workspace_(workspace ? std::move(workspace) : std::make_shared<Workspace<Exec>>("krait::MambaMixer::workspace")) {
  KRAIT_REQUIRE(ConfigError, parallel_.strategy != Strategy::local || parallel_.context.size() == 1,
                "krait::MambaMixer: the strategy is local, but the context has ", parallel_.context.size(), " ranks");
  if (parallel_.strategy == Strategy::hidden_parallel)
    (void)partition(parallel_.context);  // throws when heads and ranks do not fit
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::initialize(std::uint64_t seed, const InitializationStyle& style) {
  krait::initialize(Exec(), config_, seed, style, parallel_.tensor.place(), parameters_);
}

template <Scalar T, class Exec>
SequenceOperatorConfig MambaMixer<T, Exec>::local() const {
  return config_.sequence_operator(parallel_.tensor.size(), parallel_.divisibility);
}

template <Scalar T, class Exec>
HeadPartition MambaMixer<T, Exec>::partition(const Place& context) const {
  const auto here = local();
  return {context, {here.heads, here.head_dim, here.groups, here.d_state}, here.divisibility};
}

template <Scalar T, class Exec>
const Choice& MambaMixer<T, Exec>::choice(const SequenceLayout& layout, std::int64_t batch) const {
  if (!choice_.holds(layout, batch)) {
    choice_.set(layout, batch,
                std::make_unique<Choice>(Planner(parallel_.machine)
                                             .choose(workload_of<T, Exec>(local(), layout, batch), parallel_.strategy,
                                                     parallel_.state_exchange)));
  }
  return choice_.plan();
}

template <Scalar T, class Exec>
SequenceOperator<T, Exec>& MambaMixer<T, Exec>::sequence_operator(const SequenceLayout& layout,
                                                                  std::int64_t batch) const {
  const Prediction& chosen = choice(layout, batch).best();
  auto& slot = operators_[{chosen.strategy, chosen.exchange}];
  if (!slot) {
    SequenceOperatorConfig config = local();
    config.state_exchange = chosen.exchange;
    slot = make_sequence_operator<T, Exec>(chosen.strategy, config);
  }
  return *slot;
}

template <Scalar T, class Exec>
SequenceOperatorParameters<T, Exec> MambaMixer<T, Exec>::operator_parameters() const {
  return {.conv_weight = parameters_.conv_weight,
          .conv_bias = parameters_.conv_bias,
          .A_log = parameters_.A_log,
          .dt_bias = parameters_.dt_bias,
          .D = parameters_.D,
          .D_per_channel = parameters_.D_per_channel};
}

template <Scalar T, class Exec>
auto MambaMixer<T, Exec>::buffers(const Communicator& context, const SequenceLayout& layout, std::int64_t batch) const
    -> Buffers {
  const auto here = local();
  const std::int64_t places = batch * layout.local_length();
  const OperatorRoom room = sequence_operator(layout, batch).room(context, layout, batch);
  WorkspaceLayout space;
  Buffers result{.room = room};
  result.xBCdt = space.add<T>(std::max(places * here.input_width(), room.xBCdt));
  if (!room.y_over_x) result.y = space.add<T>(std::max(places * here.d_inner(), room.y));
  result.operator_bytes = sequence_operator(layout, batch).workspace_bytes(context, layout, batch, true);
  const std::int64_t rows = std::max<std::int64_t>(batch, 1);
  result.block = std::min(layout.local_length(), std::max<std::int64_t>(projection_block(Exec()) / rows, 1));
  const auto gate = static_cast<std::size_t>(batch * result.block * here.d_inner()) * sizeof(T);
  result.operator_offset = space.add<std::byte>(
      static_cast<std::int64_t>(room.y_over_x ? std::max(result.operator_bytes, gate) : result.operator_bytes));
  result.gate = room.y_over_x ? result.operator_offset : result.xBCdt;
  if (parallel_.tensor.size() > 1) {
    result.partial = space.add<accumulator_t<T>>(places * config_.d_model);
    result.sum = space.add<accumulator_t<T>>(places * config_.d_model);
  }
  result.bytes = space.bytes();
  return result;
}

template <Scalar T, class Exec>
auto MambaMixer<T, Exec>::training_buffers(const Communicator& context, const SequenceLayout& layout,
                                           std::int64_t batch) const -> TrainingBuffers {
  const auto here = local();
  const auto& sequence = sequence_operator(layout, batch);
  const std::int64_t tokens = layout.local_length();
  const std::int64_t places = batch * tokens;
  const std::int64_t inner = here.d_inner();
  const std::int64_t width = inner + here.input_width();
  TrainingBuffers result;
  WorkspaceLayout space;
  result.dprojection = space.add<T>(places * width);
  result.dy_room = sequence.backward_room(context, layout, batch, saving());
  result.dy = space.add<T>(std::max(places * inner, result.dy_room));
  result.steps = space.bytes();

  WorkspaceLayout gated_step = space;
  gated_step.add<T>(places * inner);
  result.after_gated = gated_step.bytes();
  result.scratch_bytes = std::max(gated_rms_norm_backward_workspace_bytes<T, Exec>(batch, tokens, inner),
                                  projection_backward_workspace_bytes<T, Exec>(batch, tokens, inner, config_.d_model));
  gated_step.add<std::byte>(static_cast<std::int64_t>(result.scratch_bytes));
  result.operator_bytes = sequence.backward_workspace_bytes(context, layout, batch, saving(), true);
  result.forward_bytes = sequence.workspace_bytes(context, layout, batch, false);
  result.in_proj_bytes = projection_backward_workspace_bytes<T, Exec>(batch, tokens, config_.d_model, width);
  result.bytes = std::max(gated_step.bytes(),
                          result.steps + std::max({result.operator_bytes, result.forward_bytes, result.in_proj_bytes}));
  if (parallel_.tensor.size() > 1) {
    space.add<accumulator_t<T>>(places * config_.d_model);
    result.sum = space.add<accumulator_t<T>>(places * config_.d_model);
    result.bytes = std::max(result.bytes, space.bytes());
  }
  return result;
}

template <Scalar T, class Exec>
impl::ActivationBlocks MambaMixer<T, Exec>::activation_blocks(const Communicator& context, const SequenceLayout& layout,
                                                              std::int64_t batch) const {
  const auto here = local();
  const std::int64_t places = batch * layout.local_length();
  impl::ActivationBlocks blocks;
  WorkspaceLayout space;
  blocks.projection = space.add<T>(places * (here.d_inner() + here.input_width()));
  blocks.y = space.add<T>(places * here.d_inner());
  blocks.rstd = space.add<accumulator_t<T>>(config_.rmsnorm ? places * here.groups : 0);
  blocks.saved_bytes = sequence_operator(layout, batch).saved_bytes(context, layout, batch, saving());
  blocks.saved = space.add<std::byte>(static_cast<std::int64_t>(blocks.saved_bytes));
  blocks.bytes = space.bytes();
  return blocks;
}

template <Scalar T, class Exec>
std::size_t MambaMixer<T, Exec>::workspace_bytes(const SequenceLayout& layout, std::int64_t batch) const {
  return buffers(parallel_.context, layout, batch).bytes;
}

template <Scalar T, class Exec>
std::size_t MambaMixer<T, Exec>::saved_bytes(const SequenceLayout& layout, std::int64_t batch) const {
  return activation_blocks(parallel_.context, layout, batch).bytes;
}

template <Scalar T, class Exec>
std::size_t MambaMixer<T, Exec>::backward_workspace_bytes(const SequenceLayout& layout, std::int64_t batch) const {
  return training_buffers(parallel_.context, layout, batch).bytes;
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::check_call(const char* function, const Call& call) const {
  call.layout.require_match(function, call.context.place());
  KRAIT_REQUIRE(LayoutError, call.documents_given || call.layout.kind() != SequenceLayout::Kind::zigzag_docs, function,
                ": the layout is cut by documents, so a DocumentMap is needed that says where states start afresh");
  call.documents.require_match(function, call.layout);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::check_tensor(const char* function, const char* name, const Hidden& tensor,
                                       const Call& call) const {
  const std::vector<std::int64_t> expected = {call.documents.rows(), call.layout.local_length(), config_.d_model};
  KRAIT_REQUIRE(ShapeError, extents(tensor) == expected, function, ": ", name, " is ", extents(tensor), ", expected ",
                expected, " (the documents' rows, the layout's local length, d_model)");
  impl::require_backed(function, name, tensor);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::check_kept(const Call& call, const MambaActivations<T, Exec>& kept) const {
  KRAIT_REQUIRE(ConfigError, kept.filled(), name_of_backward, ": kept is empty, expected what a forward has filled");
  const SequenceLayout& layout = kept.call_->layout;
  KRAIT_REQUIRE(ShapeError, kept.call_->documents.rows() == call.documents.rows(), name_of_backward,
                ": the forward had a batch of ", kept.call_->documents.rows(), " rows, this call has ",
                call.documents.rows());
  KRAIT_REQUIRE(LayoutError, layout.place() == call.layout.place() && layout == call.layout, name_of_backward,
                ": the forward had the ", layout.description(), ", this call has the ", call.layout.description(),
                layout.length() == call.layout.length() ? " (the tokens of each rank count)" : "");
  KRAIT_REQUIRE(LayoutError, impl::same_documents(kept.call_->documents, call.documents), name_of_backward,
                ": the forward had other documents (", kept.call_->documents.documents(), ", now ",
                call.documents.documents(), "), or other boundaries of them");
  KRAIT_REQUIRE(ConfigError,
                kept.call_->weights == parameters_.in_proj_weight.data() &&
                    kept.call_->blocks == activation_blocks(call.context, call.layout, call.documents.rows()),
                name_of_backward, ": kept was filled by another mixer");
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::check_gradients(const MambaGradients<T, Exec>& gradients) const {
  const auto check = [](const char* name, const auto& gradient, const auto& parameter) {
    KRAIT_REQUIRE(ShapeError, extents(gradient) == extents(parameter), name_of_backward, ": the gradient of ", name,
                  " is ", extents(gradient), ", expected ", extents(parameter));
  };
  check("in_proj_weight", gradients.in_proj_weight, parameters_.in_proj_weight);
  check("in_proj_bias", gradients.in_proj_bias, parameters_.in_proj_bias);
  check("conv_weight", gradients.conv_weight, parameters_.conv_weight);
  check("conv_bias", gradients.conv_bias, parameters_.conv_bias);
  check("dt_bias", gradients.dt_bias, parameters_.dt_bias);
  check("A_log", gradients.A_log, parameters_.A_log);
  check("D", gradients.D, parameters_.D);
  check("D_per_channel", gradients.D_per_channel, parameters_.D_per_channel);
  check("norm_weight", gradients.norm_weight, parameters_.norm_weight);
  check("out_proj_weight", gradients.out_proj_weight, parameters_.out_proj_weight);
  check("out_proj_bias", gradients.out_proj_bias, parameters_.out_proj_bias);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::agree(const char* function, const Call& call, const std::function<void()>& check) {
  // Operators compare it too, but later, when ranks of other contexts may already wait for a part of a sum.
  impl::SharedValue chosen{"the strategy and its exchange", 0};
  const auto check_and_choose = [&] {
    check();
    const Prediction& best = choice(call.layout, call.documents.rows()).best();
    chosen.value = 10 * static_cast<std::int64_t>(best.strategy) + static_cast<std::int64_t>(best.exchange);
  };
  agreed_by_tensor_ranks_(parallel_.tensor, function, call.layout, call.documents, [&] {
    agreed_(call.context, function, call.layout, call.documents, check_and_choose, &chosen);
  });
}

template <Scalar T, class Exec>
const DocumentMap& MambaMixer<T, Exec>::whole_rows(const SequenceLayout& layout, std::int64_t batch) {
  if (!documents_.holds(layout, batch)) {
    std::vector<std::int32_t> row(static_cast<std::size_t>(layout.length()), 0);
    std::fill(row.begin() + layout.real_length(), row.end(), -1);
    std::vector<std::int32_t> ids;
    for (std::int64_t b = 0; b < batch; ++b) ids.insert(ids.end(), row.begin(), row.end());
    const bool padded = layout.real_length() < layout.length();
    documents_.set(layout, batch,
                   std::make_unique<DocumentMap>(padded ? DocumentMap::from_seq_idx(ids, batch, layout.length())
                                                        : DocumentMap::whole_rows(batch, layout.length())));
  }
  return documents_.plan();
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                  const Output& out) {
  const DocumentMap& documents = whole_rows(layout, static_cast<std::int64_t>(hidden.extent(0)));
  run(exec, {parallel_.context, layout, documents, false}, hidden, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                  const DocumentMap& documents, const Output& out) {
  run(exec, {parallel_.context, layout, documents}, hidden, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Communicator& context, const Hidden& hidden,
                                  const SequenceLayout& layout, const DocumentMap& documents, const Output& out) {
  run(exec, {context, layout, documents}, hidden, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                  const Output& out, MambaActivations<T, Exec>& kept) {
  const DocumentMap& documents = whole_rows(layout, static_cast<std::int64_t>(hidden.extent(0)));
  run_training(exec, {parallel_.context, layout, documents, false}, hidden, out, kept);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                  const DocumentMap& documents, const Output& out, MambaActivations<T, Exec>& kept) {
  run_training(exec, {parallel_.context, layout, documents}, hidden, out, kept);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Communicator& context, const Hidden& hidden,
                                  const SequenceLayout& layout, const DocumentMap& documents, const Output& out,
                                  MambaActivations<T, Exec>& kept) {
  run_training(exec, {context, layout, documents}, hidden, out, kept);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::backward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                   const MambaActivations<T, Exec>& kept, const Hidden& dout, const Output& dhidden,
                                   const MambaGradients<T, Exec>& gradients) {
  const DocumentMap& documents = whole_rows(layout, static_cast<std::int64_t>(hidden.extent(0)));
  run_backward(exec, {parallel_.context, layout, documents, false}, hidden, kept, dout, dhidden, gradients);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::backward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                   const DocumentMap& documents, const MambaActivations<T, Exec>& kept,
                                   const Hidden& dout, const Output& dhidden,
                                   const MambaGradients<T, Exec>& gradients) {
  run_backward(exec, {parallel_.context, layout, documents}, hidden, kept, dout, dhidden, gradients);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::backward(const Exec& exec, const Communicator& context, const Hidden& hidden,
                                   const SequenceLayout& layout, const DocumentMap& documents,
                                   const MambaActivations<T, Exec>& kept, const Hidden& dout, const Output& dhidden,
                                   const MambaGradients<T, Exec>& gradients) {
  run_backward(exec, {context, layout, documents}, hidden, kept, dout, dhidden, gradients);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::project_in(const Exec& exec, const Hidden& hidden, std::int64_t first,
                                     const Output& into) const {
  const auto width = static_cast<std::int64_t>(into.extent(2));
  ProjectionArguments<T, Exec> arguments{
      .in = hidden, .weight = rows_of(parameters_.in_proj_weight, first, width), .bias = {}, .out = into};
  if (config_.bias) arguments.bias = rows_of(parameters_.in_proj_bias, first, width);
  projection(exec, arguments);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::gate_and_norm(const Exec& exec, const Hidden& y, const Hidden& z, const Output& out,
                                        const Tensor<accumulator_t<T>***, Exec>& rstd) const {
  const auto here = local();
  gated_rms_norm(exec, GatedRmsNormArguments<T, Exec>{.x = y,
                                                      .z = z,
                                                      .weight = parameters_.norm_weight,
                                                      .bias = {},
                                                      .out = out,
                                                      .rstd = rstd,
                                                      .group_size = here.d_inner() / here.groups,
                                                      .norm_before_gate = config_.norm_before_gate,
                                                      .normalize = config_.rmsnorm,
                                                      .epsilon = config_.norm_eps});
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::project_out(const Exec& exec, const Hidden& gated, const Output& out) const {
  // The bias belongs to the whole layer: one tensor rank adds it.
  ProjectionArguments<T, Exec> arguments{.in = gated, .weight = parameters_.out_proj_weight, .bias = {}, .out = out};
  if (config_.bias && parallel_.tensor.rank() == 0) arguments.bias = parameters_.out_proj_bias;
  projection(exec, arguments);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::run(const Exec& exec, const Call& call, const Hidden& hidden, const Output& out) {
  const Kokkos::Profiling::ScopedRegion region(name_of_forward);
  const std::int64_t batch = call.documents.rows();
  agree(name_of_forward, call, [&] {
    check_call(name_of_forward, call);
    check_tensor(name_of_forward, "hidden", hidden, call);
    check_tensor(name_of_forward, "out", out, call);
    workspace_->reserve(exec, buffers(call.context, call.layout, batch).bytes);
  });
  const auto here = local();
  const Buffers place = buffers(call.context, call.layout, batch);
  const auto tensor = [&](std::size_t offset, std::int64_t width) {
    return make_tensor<T***, Exec, 3>(workspace_->template at<T>(offset), {batch, call.layout.local_length(), width});
  };
  const Output xBCdt = tensor(place.xBCdt, here.input_width());
  const Output y = place.room.y_over_x ? impl::columns(xBCdt, 0, here.d_inner()) : tensor(place.y, here.d_inner());

  project_in(exec, hidden, here.d_inner(), xBCdt);
  sequence_operator(call.layout, batch)
      .forward(exec, call.context, call.layout, call.documents, operator_parameters(),
               {.xBCdt = xBCdt,
                .y = y,
                .workspace = bytes_at(*workspace_, place.operator_offset, place.operator_bytes),
                .room = place.room});
  // The gate, not before it is needed; its memory gets what leaves the norm.
  for (std::int64_t first = 0; first < call.layout.local_length(); first += place.block) {
    const std::int64_t count = std::min(place.block, call.layout.local_length() - first);
    const auto gate =
        make_tensor<T***, Exec, 3>(workspace_->template at<T>(place.gate), {batch, count, here.d_inner()});
    project_in(exec, tokens_of(hidden, first, count), 0, gate);
    gate_and_norm(exec, tokens_of(Hidden(y), first, count), gate, gate, {});
    project_out(exec, gate, tokens_of(out, first, count));
  }
  if (parallel_.tensor.size() > 1) add_over_tensor_ranks(exec, place.partial, place.sum, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::run_training(const Exec& exec, const Call& call, const Hidden& hidden, const Output& out,
                                       MambaActivations<T, Exec>& kept) {
  const Kokkos::Profiling::ScopedRegion region(name_of_forward);
  const std::int64_t batch = call.documents.rows();
  kept.call_.reset();  // on every rank, also where only another one refuses the call
  agree(name_of_forward, call, [&] {
    check_call(name_of_forward, call);
    check_tensor(name_of_forward, "hidden", hidden, call);
    check_tensor(name_of_forward, "out", out, call);
    kept.memory_.reserve(exec, activation_blocks(call.context, call.layout, batch).bytes);
    workspace_->reserve(exec, training_buffers(call.context, call.layout, batch).bytes);
  });
  kept.call_.emplace(call.layout, call.documents, activation_blocks(call.context, call.layout, batch),
                     parameters_.in_proj_weight.data());
  const TrainingBuffers place = training_buffers(call.context, call.layout, batch);
  const KeptTensors tensors = kept_tensors(kept);
  const auto gated = make_tensor<T***, Exec, 3>(workspace_->template at<T>(place.steps),
                                                {batch, call.layout.local_length(), local().d_inner()});

  project_in(exec, hidden, 0, tensors.projection);
  sequence_operator(call.layout, batch)
      .forward(exec, call.context, call.layout, call.documents, operator_parameters(),
               {.xBCdt = tensors.xBCdt,
                .y = tensors.y,
                .workspace = bytes_at(*workspace_, place.steps, place.forward_bytes),
                .saved = tensors.saved,
                .saving = saving()});
  gate_and_norm(exec, tensors.y, tensors.z, gated, tensors.rstd);
  project_out(exec, gated, out);
  if (parallel_.tensor.size() > 1) add_over_tensor_ranks(exec, place.steps, place.sum, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::backward_to_y(const Exec& exec, const KeptTensors& tensors, const Hidden& dout,
                                        const Output& dy, const Output& dz, const Output& gated,
                                        const Tensor<std::byte*, Exec>& scratch,
                                        const MambaGradients<T, Exec>& gradients) const {
  const auto here = local();
  ProjectionBackwardArguments<T, Exec> out_proj;
  out_proj.dout = dout;
  out_proj.workspace = scratch;
  ProjectionBackwardArguments<T, Exec> out_proj_weight = out_proj;
  out_proj.weight = parameters_.out_proj_weight;
  out_proj.din = dy;
  projection_backward(exec, out_proj);

  GatedRmsNormBackwardArguments<T, Exec> norm;
  norm.x = tensors.y;
  norm.z = tensors.z;
  norm.weight = parameters_.norm_weight;
  norm.group_size = here.d_inner() / here.groups;
  norm.norm_before_gate = config_.norm_before_gate;
  norm.normalize = config_.rmsnorm;
  norm.epsilon = config_.norm_eps;
  norm.rstd = tensors.rstd;
  norm.dout = dy;
  norm.dx = dy;
  norm.dz = dz;
  norm.dweight = gradients.norm_weight;
  norm.out = gated;
  norm.workspace = scratch;
  gated_rms_norm_backward(exec, norm);

  out_proj_weight.in = gated;
  out_proj_weight.dweight = gradients.out_proj_weight;
  out_proj_weight.dbias = gradients.out_proj_bias;
  projection_backward(exec, out_proj_weight);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::run_backward(const Exec& exec, const Call& call, const Hidden& hidden,
                                       const MambaActivations<T, Exec>& kept, const Hidden& dout, const Output& dhidden,
                                       const MambaGradients<T, Exec>& gradients) {
  const Kokkos::Profiling::ScopedRegion region(name_of_backward);
  const std::int64_t batch = call.documents.rows();
  agree(name_of_backward, call, [&] {
    check_call(name_of_backward, call);
    check_kept(call, kept);
    check_tensor(name_of_backward, "hidden", hidden, call);
    check_tensor(name_of_backward, "dout", dout, call);
    check_tensor(name_of_backward, "dhidden", dhidden, call);
    KRAIT_REQUIRE(ShapeError, dhidden.size() == 0 || dhidden.data() != hidden.data(), name_of_backward,
                  ": dhidden is hidden, which is still needed when dhidden is written");
    check_gradients(gradients);
    workspace_->reserve(exec, training_buffers(call.context, call.layout, batch).bytes);
  });
  const auto here = local();
  const std::int64_t inner = here.d_inner();
  const TrainingBuffers place = training_buffers(call.context, call.layout, batch);
  const KeptTensors tensors = kept_tensors(kept);
  const auto tensor = [&](std::size_t offset, std::int64_t width) {
    return make_tensor<T***, Exec, 3>(workspace_->template at<T>(offset), {batch, call.layout.local_length(), width});
  };
  const Output dprojection = tensor(place.dprojection, inner + here.input_width());
  const Output dy = tensor(place.dy, inner);
  // Without tokens a rank takes part in the exchanges only, and its tensors have no memory.
  if (dy.size() > 0)
    backward_to_y(exec, tensors, dout, dy, impl::columns(dprojection, 0, inner), tensor(place.steps, inner),
                  bytes_at(*workspace_, place.after_gated, place.scratch_bytes), gradients);

  SequenceOperatorBackwardArguments<T, Exec> sequence;
  sequence.xBCdt = tensors.xBCdt;
  sequence.dy = dy;
  sequence.dxBCdt = impl::columns(dprojection, inner, here.input_width());
  sequence.saved = tensors.saved;
  sequence.saving = saving();
  sequence.workspace = bytes_at(*workspace_, place.steps, place.operator_bytes);
  sequence.room = place.dy_room;
  sequence_operator(call.layout, batch)
      .backward(exec, call.context, call.layout, call.documents, operator_parameters(),
                {.conv_weight = gradients.conv_weight,
                 .conv_bias = gradients.conv_bias,
                 .A_log = gradients.A_log,
                 .dt_bias = gradients.dt_bias,
                 .D = gradients.D,
                 .D_per_channel = gradients.D_per_channel},
                sequence);

  ProjectionBackwardArguments<T, Exec> in_proj;
  in_proj.in = hidden;
  in_proj.weight = parameters_.in_proj_weight;
  in_proj.dout = dprojection;
  in_proj.din = dhidden;
  in_proj.dweight = gradients.in_proj_weight;
  in_proj.dbias = gradients.in_proj_bias;
  in_proj.workspace = bytes_at(*workspace_, place.steps, place.in_proj_bytes);
  projection_backward(exec, in_proj);
  if (parallel_.tensor.size() > 1) add_over_tensor_ranks(exec, place.steps, place.sum, dhidden);
}

template <Scalar T, class Exec>
auto MambaMixer<T, Exec>::kept_tensors(const MambaActivations<T, Exec>& kept) const -> KeptTensors {
  const auto here = local();
  const std::int64_t inner = here.d_inner();
  const impl::ActivationBlocks& blocks = kept.call_->blocks;
  const auto tensor = [&](auto* memory, std::int64_t width) {
    using V = std::remove_pointer_t<decltype(memory)>;
    return make_tensor<V***, Exec, 3>(memory, {kept.call_->documents.rows(), kept.call_->layout.local_length(), width});
  };
  KeptTensors tensors;
  tensors.projection = tensor(kept.memory_.template at<T>(blocks.projection), inner + here.input_width());
  tensors.z = impl::columns(tensors.projection, 0, inner);
  tensors.xBCdt = impl::columns(tensors.projection, inner, here.input_width());
  tensors.y = tensor(kept.memory_.template at<T>(blocks.y), inner);
  if (config_.rmsnorm) tensors.rstd = tensor(kept.memory_.template at<accumulator_t<T>>(blocks.rstd), here.groups);
  tensors.saved = bytes_at(kept.memory_, blocks.saved, blocks.saved_bytes);
  return tensors;
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::add_over_tensor_ranks(const Exec& exec, std::size_t partial_offset, std::size_t sum_offset,
                                                const Output& out) const {
  using A = accumulator_t<T>;
  using Flat = Kokkos::View<A*, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  const Flat partial(workspace_->template at<A>(partial_offset), out.size());
  const Flat sum(workspace_->template at<A>(sum_offset), out.size());
  const Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>> every(exec, 0,
                                                                         static_cast<std::int64_t>(out.size()));
  Kokkos::parallel_for("krait::MambaMixer::gather_partial", every, CopyToFlat<A, T, Exec>{out, partial.data()});
  comm::all_reduce(exec, parallel_.tensor, partial, sum, Reduction::sum).wait_on(exec);
  Kokkos::parallel_for("krait::MambaMixer::scatter_sum", every, CopyFromFlat<A, T, Exec>{sum.data(), out});
}

#define KRAIT_INSTANTIATE(T, EXEC) template class MambaMixer<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
