// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_mixer.hpp>

#include <algorithm>
#include <string>
#include <utility>

#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/ops/gated_rms_norm.hpp>
#include <krait/ops/projection.hpp>

namespace krait {

/// Where the intermediates of one call lie in the workspace. `xBCdt` doubles as workspace of the operator.
template <Scalar T, class Exec>
struct MambaMixer<T, Exec>::Buffers {
  std::int64_t rows = 0;
  std::int64_t tokens = 0;
  OperatorRoom room;
  std::size_t z = 0;
  std::size_t xBCdt = 0;
  std::size_t y = 0;
  std::size_t operator_offset = 0;
  std::size_t operator_bytes = 0;
  std::size_t partial = 0;  // with tensor ranks: this rank's addend of the output, and the sum
  std::size_t sum = 0;
  std::size_t bytes = 0;
};

namespace {

constexpr const char* name_of_forward = "krait::MambaMixer::forward";

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
  if (resolve(parallel_.strategy, parallel_.context.size()) == Strategy::hidden_parallel)
    (void)partition(parallel_.context);  // throws when heads and ranks do not fit
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::initialize(std::uint64_t seed, const InitializationStyle& style) {
  krait::initialize(Exec(), config_, seed, style, parallel_.tensor.place(), parameters_);
}

template <Scalar T, class Exec>
HeadPartition MambaMixer<T, Exec>::partition(const Place& context) const {
  const auto local = config_.sequence_operator(parallel_.tensor.size(), parallel_.divisibility);
  return {context, {local.heads, local.head_dim, local.groups, local.d_state}, local.divisibility};
}

template <Scalar T, class Exec>
SequenceOperator<T, Exec>& MambaMixer<T, Exec>::sequence_operator(int ranks) const {
  const Strategy strategy = resolve(parallel_.strategy, ranks);
  auto& slot = operators_[strategy];
  if (!slot)
    slot = make_sequence_operator<T, Exec>(strategy,
                                           config_.sequence_operator(parallel_.tensor.size(), parallel_.divisibility));
  return *slot;
}

template <Scalar T, class Exec>
auto MambaMixer<T, Exec>::buffers(const Communicator& context, const SequenceLayout& layout, std::int64_t batch) const
    -> Buffers {
  const auto local = config_.sequence_operator(parallel_.tensor.size(), parallel_.divisibility);
  const std::int64_t tokens = layout.local_length();
  const std::int64_t places = batch * tokens;
  const OperatorRoom room = sequence_operator(context.size()).room(context, layout, batch);
  WorkspaceLayout space;
  Buffers result{.rows = batch, .tokens = tokens, .room = room};
  result.z = space.add<T>(places * local.d_inner());
  result.xBCdt = space.add<T>(std::max(places * local.input_width(), room.xBCdt));
  result.y = space.add<T>(std::max(places * local.d_inner(), room.y));
  result.operator_bytes = sequence_operator(context.size()).workspace_bytes(context, layout, batch, true);
  result.operator_offset = space.add<std::byte>(static_cast<std::int64_t>(result.operator_bytes));
  if (parallel_.tensor.size() > 1) {
    result.partial = space.add<accumulator_t<T>>(places * config_.d_model);
    result.sum = space.add<accumulator_t<T>>(places * config_.d_model);
  }
  result.bytes = space.bytes();
  return result;
}

template <Scalar T, class Exec>
std::size_t MambaMixer<T, Exec>::workspace_bytes(const SequenceLayout& layout, std::int64_t batch) const {
  return buffers(parallel_.context, layout, batch).bytes;
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::check(const Hidden& hidden, const SequenceLayout& layout, const DocumentMap& documents,
                                const Output& out) const {
  documents.require_match(name_of_forward, layout);
  const std::vector<std::int64_t> expected = {documents.rows(), layout.local_length(), config_.d_model};
  KRAIT_REQUIRE(ShapeError, extents(hidden) == expected, name_of_forward, ": hidden is ", extents(hidden),
                ", expected ", expected, " (the documents' rows, the layout's local length, d_model)");
  KRAIT_REQUIRE(ShapeError, extents(out) == expected, name_of_forward, ": out is ", extents(out), ", expected ",
                expected);
  KRAIT_REQUIRE(ShapeError, hidden.size() == 0 || (hidden.data() != nullptr && out.data() != nullptr), name_of_forward,
                ": hidden or out has no memory");
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
  run(exec, parallel_.context, hidden, layout, documents, out, false);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                                  const DocumentMap& documents, const Output& out) {
  forward(exec, parallel_.context, hidden, layout, documents, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::forward(const Exec& exec, const Communicator& context, const Hidden& hidden,
                                  const SequenceLayout& layout, const DocumentMap& documents, const Output& out) {
  run(exec, context, hidden, layout, documents, out, true);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::run(const Exec& exec, const Communicator& context, const Hidden& hidden,
                              const SequenceLayout& layout, const DocumentMap& documents, const Output& out,
                              bool documents_given) {
  const Kokkos::Profiling::ScopedRegion region(name_of_forward);
  agreed_(context, name_of_forward, layout, documents, [&] {
    layout.require_match(name_of_forward, context.place());
    KRAIT_REQUIRE(LayoutError, documents_given || layout.kind() != SequenceLayout::Kind::zigzag_docs, name_of_forward,
                  ": the layout is cut by documents, so a DocumentMap is needed that says where states start afresh");
    check(hidden, layout, documents, out);
    workspace_->reserve(exec, buffers(context, layout, documents.rows()).bytes);
  });
  auto& sequence = sequence_operator(context.size());

  const auto local = config_.sequence_operator(parallel_.tensor.size(), parallel_.divisibility);
  const Buffers place = buffers(context, layout, documents.rows());
  const std::int64_t inner = local.d_inner();
  const auto tensor = [&](std::size_t offset, std::int64_t width) {
    return make_tensor<T***, Exec, 3>(workspace_->template at<T>(offset), {place.rows, place.tokens, width});
  };
  const Output z = tensor(place.z, inner);
  const Output xBCdt = tensor(place.xBCdt, local.input_width());
  const Output y = tensor(place.y, inner);

  const auto project = [&](std::int64_t begin, const Output& into) {
    const auto width = static_cast<std::int64_t>(into.extent(2));
    ProjectionArguments<T, Exec> arguments{
        .in = hidden, .weight = rows_of(parameters_.in_proj_weight, begin, width), .bias = {}, .out = into};
    if (config_.bias) arguments.bias = rows_of(parameters_.in_proj_bias, begin, width);
    projection(exec, arguments);
  };
  project(0, z);
  project(inner, xBCdt);

  const auto scratch = make_tensor<std::byte*, Exec, 1>(workspace_->template at<std::byte>(place.operator_offset),
                                                        {static_cast<std::int64_t>(place.operator_bytes)});
  sequence.forward(exec, context, layout, documents,
                   {.conv_weight = parameters_.conv_weight,
                    .conv_bias = parameters_.conv_bias,
                    .A_log = parameters_.A_log,
                    .dt_bias = parameters_.dt_bias,
                    .D = parameters_.D,
                    .D_per_channel = parameters_.D_per_channel},
                   {.xBCdt = xBCdt, .y = y, .workspace = scratch, .room = place.room});

  gated_rms_norm(exec, GatedRmsNormArguments<T, Exec>{.x = y,
                                                      .z = z,
                                                      .weight = parameters_.norm_weight,
                                                      .bias = {},
                                                      .out = y,
                                                      .group_size = inner / local.groups,
                                                      .norm_before_gate = config_.norm_before_gate,
                                                      .normalize = config_.rmsnorm,
                                                      .epsilon = config_.norm_eps});

  // The bias belongs to the whole layer: one tensor rank adds it.
  ProjectionArguments<T, Exec> arguments{.in = y, .weight = parameters_.out_proj_weight, .bias = {}, .out = out};
  if (config_.bias && parallel_.tensor.rank() == 0) arguments.bias = parameters_.out_proj_bias;
  projection(exec, arguments);
  if (parallel_.tensor.size() > 1) add_over_tensor_ranks(exec, place, out);
}

template <Scalar T, class Exec>
void MambaMixer<T, Exec>::add_over_tensor_ranks(const Exec& exec, const Buffers& place, const Output& out) const {
  using A = accumulator_t<T>;
  using Flat = Kokkos::View<A*, typename Exec::memory_space, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  const Flat partial(workspace_->template at<A>(place.partial), out.size());
  const Flat sum(workspace_->template at<A>(place.sum), out.size());
  const Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>> every(exec, 0,
                                                                         static_cast<std::int64_t>(out.size()));
  Kokkos::parallel_for("krait::MambaMixer::gather_partial", every, CopyToFlat<A, T, Exec>{out, partial.data()});
  comm::all_reduce(exec, parallel_.tensor, partial, sum, Reduction::sum).wait_on(exec);
  Kokkos::parallel_for("krait::MambaMixer::scatter_sum", every, CopyFromFlat<A, T, Exec>{sum.data(), out});
}

#define KRAIT_INSTANTIATE(T, EXEC) template class MambaMixer<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
