// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel_forward.hpp>

#include <algorithm>

#include <krait/core/instantiate.hpp>
#include <krait/core/row_loop.hpp>

namespace krait::impl {
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
HiddenForward<T, Exec>::HiddenForward(const Exec& exec, const Communicator& context, HiddenPlan<T, Exec>& plan,
                                      const SequenceLayout& layout, const DocumentMap& documents,
                                      const SequenceOperatorParameters<T, Exec>& parameters,
                                      const SequenceOperatorArguments<T, Exec>& arguments)
    : exec_(exec),
      context_(context),
      plan_(plan),
      documents_(documents),
      parameters_(parameters),
      arguments_(arguments),
      blocks_(plan),
      saved_(plan),
      exchange_(reinterpret_cast<T*>(arguments.workspace.data())),
      arrival_(arguments.overwrites_input() ? arguments.xBCdt.data() : exchange_ + blocks_.exchange.size),
      y_out_(arguments.overwrites_input() ? arguments.y.data() : arrival_ + blocks_.arrival.size),
      map_(map_of<Exec>(layout)) {}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::run() {
  enter();
  take_states();
  plan_.whole.take_parameters(exec_, parameters_);
  for (const Part& part : plan_.parts) {
    entering_[index(part)].wait_on(exec_);
    if (keeps() && !arrives_kept()) keep_arrival(part);
    convolve(part);
    scan(part);
    leave(part);
  }
  if (!is_absent(arguments_.final.conv)) plan_.states.put(exec_, final_conv_, arguments_.final.conv);
  unpack();
}

/// In place, parts arrive where the input is, so that all of it is packed before the first one travels.
template <Scalar T, class Exec>
void HiddenForward<T, Exec>::enter() {
  const auto send = [this](const Part& part) {
    entering_.push_back(
        part.enter.send_to_heads(plan_.side(part.number, exec_), context_, packed(part), arrived(part)));
  };
  const bool in_place = arguments_.overwrites_input();
  for (const Part& part : plan_.parts) {
    part.enter.pack(exec_, arguments_.xBCdt, packed(part));
    if (!in_place) send(part);
  }
  if (in_place) std::for_each(plan_.parts.begin(), plan_.parts.end(), send);
}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::take_states() {
  initial_conv_ = plan_.initial_conv(exec_, arguments_.initial.conv);
  if (!is_absent(arguments_.final.conv)) final_conv_ = plan_.states.template second<T>(documents_.documents());
  if (!is_absent(arguments_.final.ssm)) Kokkos::deep_copy(exec_, arguments_.final.ssm, A(0));
}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::keep_arrival(const Part& part) {
  const auto whole = heads_tensor(kept_arrival(), plan_, plan_.input_width());
  for (const auto& [column, local, count] : part.columns)
    for_rows("krait::HiddenParallel::keep_arrival", exec_, plan_.places(), count,
             KeepColumns<T, Exec>{columns(input(part), local, count), columns(whole, column, count), plan_.rows});
}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::convolve(const Part& part) {
  for (const auto& [column, local, count] : part.conv)
    plan_.whole.convolve(exec_, parameters_,
                         ConvChannels<T, Exec>{.first = column,
                                               .x = columns(input(part), local, count),
                                               .map = map_,
                                               .out = columns(conv_out(part), keeps() ? column : local, count),
                                               .states = part_of(initial_conv_, column, count),
                                               .final_states = part_of(final_conv_, column, count)},
                         documents_.runs());
}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::scan(const Part& part) {
  const auto of_part = [&](const auto& full) {
    return part_of(plan_.states.heads(full), part.heads.begin, part.heads.count);
  };
  plan_.whole.scan(exec_, parameters_,
                   ScanHeads<T, Exec>{.x = x(part),
                                      .BC = group_columns(),
                                      .dt = columns(input(part), part.channels, part.heads.count),
                                      .map = map_,
                                      .out = part.leave.leave_target(arguments_.y, leaving(part)),
                                      .states = of_part(arguments_.initial.ssm),
                                      .final_states = of_part(arguments_.final.ssm)},
                   documents_.runs(), part.number);
}

template <Scalar T, class Exec>
void HiddenForward<T, Exec>::leave(const Part& part) {
  gone_.push_back(part.leave.send_to_sequence(plan_.side(part.number, exec_), context_, leaving(part), home(part)));
}

/// In place, parts are unpacked to where others leave from, so that all are home before.
template <Scalar T, class Exec>
void HiddenForward<T, Exec>::unpack() {
  if (arguments_.overwrites_input())
    for (Request& request : gone_) request.wait_on(exec_);
  for (const Part& part : plan_.parts) {
    gone_[index(part)].wait_on(exec_);
    part.leave.unpack_part(exec_, home(part), arguments_.y);
  }
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenForward<T, Exec>::packed(const Part& part) const {
  return flat<T, Exec>(exchange_ + blocks_.exchange.old_begin[index(part)], part.enter.sequence_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenForward<T, Exec>::arrived(const Part& part) const {
  T* const begin = arrives_kept() ? kept_arrival() : arrival_ + blocks_.arrival.old_begin[index(part)];
  return flat<T, Exec>(begin, part.enter.heads_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenForward<T, Exec>::leaving(const Part& part) const {
  return flat<T, Exec>(y_out_ + blocks_.y_begin[index(part)], part.leave.heads_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenForward<T, Exec>::home(const Part& part) const {
  return flat<T, Exec>(arrival_ + blocks_.arrival.new_begin[index(part)], part.leave.sequence_buffer_size());
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenForward<T, Exec>::input(const Part& part) const {
  return plan_.alone() ? Tensor<const T***, Exec>(arguments_.xBCdt) : part.enter.heads_view(arrived(part));
}

template <Scalar T, class Exec>
Tensor<T***, Exec> HiddenForward<T, Exec>::conv_out(const Part& part) const {
  if (!keeps()) return conv_tensor(exchange_ + blocks_.exchange.new_begin[index(part)], plan_, part.channels);
  T* const kept = reinterpret_cast<T*>(arguments_.saved.data() + saved_.conv_out);
  return conv_tensor(kept, plan_, plan_.partition.conv_channels_local());
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenForward<T, Exec>::x(const Part& part) const {
  const std::int64_t first = keeps() ? part.heads.begin * plan_.partition.shape().head_dim : 0;
  return columns(conv_out(part), first, part.inner);
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenForward<T, Exec>::group_columns() const {
  const Part& first = plan_.parts.front();
  return columns(conv_out(first), keeps() ? plan_.partition.d_inner_local() : first.inner,
                 2 * plan_.partition.group_width_local());
}

#define KRAIT_INSTANTIATE(T, EXEC) template class HiddenForward<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
