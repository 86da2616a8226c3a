// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel.hpp>

#include <algorithm>
#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/operator_checks.hpp>
#include <krait/parallel/whole_sequence.hpp>

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

}  // namespace

/// Elements of each block of memory that a forward call walks through. A block is reused as soon as its contents are
/// dead. Given room(), the arrival lies in the caller's xBCdt, and y_out in the caller's y.
///
///     exchange   pack, send, conv_out      arrival: received, then what comes home      y_out: what the scan writes
///     enter      sequence buffer       ->  heads buffer
///     conv       conv_out              <-  heads buffer
///     scan       conv_out, heads buffer (dt)                                        ->  heads buffer of the way back
///     leave                                sequence buffer of the way back          <-  "
///     unpack                               "                                        ->  y
template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Blocks {
  std::int64_t exchange = 0;
  std::int64_t arrival = 0;
  std::int64_t y_out = 0;

  [[nodiscard]] std::int64_t of_workspace(bool overwrite_input) const {
    return exchange + (overwrite_input ? 0 : arrival + y_out);
  }
};

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::blocks_of(const Redistribution<T, Exec>& enter, const Redistribution<T, Exec>& leave,
                                        const HeadPartition& partition) -> Blocks {
  Blocks blocks;
  blocks.exchange =
      std::max(enter.sequence_buffer_size(), enter.rows() * enter.layout().length() * partition.conv_channels_local());
  blocks.arrival = std::max(enter.heads_buffer_size(), leave.sequence_buffer_size());
  blocks.y_out = leave.heads_buffer_size();
  return {aligned(blocks.exchange), aligned(blocks.arrival), aligned(blocks.y_out)};
}

template <Scalar T, class Exec>
struct HiddenParallel<T, Exec>::Plan {
  HeadPartition partition;
  Redistribution<T, Exec> enter;  // x | B | C | dt
  Redistribution<T, Exec> leave;  // y
  impl::WholeSequence<T, Exec> whole;

  Plan(const Exec& exec, const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t batch)
      : partition(partition_of(config, layout.place())),
        enter(layout, partition.projection_sections(false), batch),
        leave(layout, partition.inner_sections(), batch),
        whole(exec, config, partition, batch, layout.length()) {}

  [[nodiscard]] Blocks blocks() const { return blocks_of(enter, leave, partition); }
};

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::HiddenParallel(const SequenceOperatorConfig& config) : config_(config) {
  config_.validate();
}

template <Scalar T, class Exec>
HiddenParallel<T, Exec>::~HiddenParallel() = default;

template <Scalar T, class Exec>
HeadPartition HiddenParallel<T, Exec>::partition(const Place& context) const {
  return partition_of(config_, context);
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
auto HiddenParallel<T, Exec>::blocks_for(const Communicator& context, const SequenceLayout& layout,
                                         std::int64_t batch) const -> Blocks {
  if (slot_.holds(layout, batch)) return slot_.plan().blocks();
  const HeadPartition heads = partition(context.place());
  const Redistribution<T, Exec> enter(layout, heads.projection_sections(false), batch);
  const Redistribution<T, Exec> leave(layout, heads.inner_sections(), batch);
  return blocks_of(enter, leave, heads);
}

template <Scalar T, class Exec>
auto HiddenParallel<T, Exec>::plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch) -> Plan& {
  if (!slot_.holds(layout, batch)) slot_.set(layout, batch, std::make_unique<Plan>(exec, config_, layout, batch));
  return slot_.plan();
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
                              workspace_bytes(context, layout, batch, in_place), room(context, layout, batch));
    plan_for(exec, layout, batch);  // here, so that a rank that cannot have one does not leave the others waiting
  });
  const Plan& plan = slot_.plan();

  const Blocks blocks = plan.blocks();
  T* const exchange = reinterpret_cast<T*>(arguments.workspace.data());
  T* const arrival = in_place ? arguments.xBCdt.data() : exchange + blocks.exchange;
  T* const y_out = in_place ? arguments.y.data() : exchange + blocks.exchange + blocks.arrival;

  auto entered =
      plan.enter.enter(exec, context, arguments.xBCdt, flat<T, Exec>(exchange, plan.enter.sequence_buffer_size()),
                       flat<T, Exec>(arrival, plan.enter.heads_buffer_size()));
  entered.request.wait_on(exec);

  const auto leaving = flat<T, Exec>(y_out, plan.leave.heads_buffer_size());
  Tensor<const std::int64_t*, Exec> map;
  if (!layout.is_identity()) map = layout.template index_map<typename Exec::memory_space>();
  plan.whole.run(exec, parameters, entered.heads, map, exchange, plan.leave.leave_target(arguments.y, leaving),
                 documents.runs());

  if (plan.leave.passthrough()) return;
  const auto home = flat<T, Exec>(arrival, plan.leave.sequence_buffer_size());
  plan.leave.send_to_sequence(exec, context, leaving, home).wait_on(exec);
  plan.leave.unpack(exec, home, arguments.y);
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
