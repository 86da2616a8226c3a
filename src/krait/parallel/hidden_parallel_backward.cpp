// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/hidden_parallel_backward.hpp>

#include <krait/core/instantiate.hpp>

namespace krait::impl {

template <Scalar T, class Exec>
HiddenBackward<T, Exec>::HiddenBackward(const Exec& exec, const Communicator& context, HiddenPlan<T, Exec>& plan,
                                        const SequenceLayout& layout, const DocumentMap& documents,
                                        const SequenceOperatorParameters<T, Exec>& parameters,
                                        const SequenceOperatorGradients<T, Exec>& gradients,
                                        const SequenceOperatorBackwardArguments<T, Exec>& arguments)
    : exec_(exec),
      context_(context),
      plan_(plan),
      documents_(documents),
      parameters_(parameters),
      gradients_(gradients),
      arguments_(arguments),
      blocks_(plan, arguments.saving, plan.whole.backward_scratch_bytes()),
      saved_(plan),
      exchange_(reinterpret_cast<T*>(arguments.workspace.data())),
      arrival_(arguments.room > 0 ? arguments.dy.data() : exchange_ + blocks_.exchange.size),
      scratch_(make_tensor<std::byte*, Exec, 1>(
          arguments.workspace.data() + static_cast<std::size_t>(blocks_.elements(arguments.room > 0)) * sizeof(T),
          {static_cast<std::int64_t>(blocks_.scratch_bytes)})),
      map_(map_of<Exec>(layout)),
      entering_(plan.gradient_parts.size()) {}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::run() {
  enter();
  take_states();
  plan_.whole.begin_backward(exec_, parameters_);
  if (groups_travel_alone() && lean()) {
    wait_for(groups());
    convolve(groups());
  }
  for (const Part& part : plan_.gradient_parts) {
    if (part.has_heads) {
      wait_for(part);
      if (lean()) convolve(part);
      scan_backward(part);
    }
    convolve_backward(part);
    leave(part);
  }
  plan_.whole.end_backward(exec_, gradients_);
  put_states();
  unpack();
}

/// In place, parts arrive where dy is, so that all of it is packed before the first one travels.
template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::enter() {
  std::vector<const Part*> order{&groups()};
  for (const Part& part : plan_.gradient_parts)
    if (&part != &groups()) order.push_back(&part);
  const auto send = [this](const Part& part) {
    if (const auto* const entering = plan_.entering(part, arguments_.saving))
      entering_[index(part)] =
          entering->send_to_heads(plan_.side(part.number, exec_), context_, packed(part), arrived(part));
  };
  const bool in_place = arguments_.room > 0;
  for (const Part* const part : order) {
    const auto* const entering = plan_.entering(*part, arguments_.saving);
    if (entering == nullptr) continue;
    if (lean()) entering->pack_columns(exec_, arguments_.xBCdt, 0, packed(*part));
    if (part->has_heads) entering->pack_columns(exec_, arguments_.dy, lean() ? part->leave.width() : 0, packed(*part));
    if (!in_place) send(*part);
  }
  if (in_place)
    for (const Part* const part : order) send(*part);
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::take_states() {
  const std::int64_t states = documents_.documents();
  conv_states_ = plan_.initial_conv(exec_, arguments_.initial.conv);
  if (!is_absent(arguments_.dfinal.conv)) {
    dfinal_conv_ = plan_.states.template second<A>(states);
    plan_.states.gather_gradients(exec_, arguments_.dfinal.conv, dfinal_conv_);
  }
  if (!is_absent(arguments_.dinitial.conv)) dconv_states_ = plan_.states.template third<A>(states);
  if (!is_absent(arguments_.dinitial.ssm)) Kokkos::deep_copy(exec_, arguments_.dinitial.ssm, A(0));
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::wait_for(const Part& part) {
  entering_[index(part)].wait_on(exec_);
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::convolve(const Part& part) {
  plan_.whole.convolve(exec_, parameters_,
                       ConvChannels<T, Exec>{.first = part.first_channel,
                                             .x = x(part),
                                             .map = map_,
                                             .out = conv_memory(part),
                                             .states = part_of(conv_states_, part.first_channel, part.channels)},
                       documents_.runs());
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::scan_backward(const Part& part) {
  const std::int64_t states = 2 * plan_.partition.group_width_local();
  const auto of_part = [&](const auto& full) {
    return part_of(plan_.states.heads(full), part.heads.begin, part.heads.count);
  };
  plan_.whole.scan_backward(exec_, parameters_, gradients_,
                            ScanHeadGradients<T, Exec>{.x = columns(conv_out(part), 0, part.inner),
                                                       .BC = columns(conv_out(groups()), groups().inner, states),
                                                       .dt = dt(part),
                                                       .map = map_,
                                                       .dout = dy(part),
                                                       .dx = columns(dconv_out(part), 0, part.inner),
                                                       .dBC = columns(dconv_out(groups()), groups().inner, states),
                                                       .ddt = columns(dinput(part), part.channels, part.heads.count),
                                                       .scratch = scratch_,
                                                       .states = of_part(arguments_.initial.ssm),
                                                       .dfinal_states = of_part(arguments_.dfinal.ssm),
                                                       .dstates = of_part(arguments_.dinitial.ssm)},
                            documents_.runs(), part.number);
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::convolve_backward(const Part& part) {
  plan_.whole.convolve_backward(
      exec_, parameters_,
      ConvChannelGradients<T, Exec>{.first = part.first_channel,
                                    .x = x(part),
                                    .map = map_,
                                    .dout = dconv_out(part),
                                    .dx = columns(dinput(part), 0, part.channels),
                                    .scratch = scratch_,
                                    .states = part_of(conv_states_, part.first_channel, part.channels),
                                    .dfinal_states = part_of(dfinal_conv_, part.first_channel, part.channels),
                                    .dstates = part_of(dconv_states_, part.first_channel, part.channels)},
      documents_.runs());
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::leave(const Part& part) {
  gone_.push_back(part.leave.send_to_sequence(plan_.side(part.number, exec_), context_, leaving(part), home(part)));
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::put_states() {
  if (!is_absent(arguments_.dinitial.conv)) plan_.states.put_gradients(exec_, dconv_states_, arguments_.dinitial.conv);
}

template <Scalar T, class Exec>
void HiddenBackward<T, Exec>::unpack() {
  for (const Part& part : plan_.gradient_parts) {
    gone_[index(part)].wait_on(exec_);
    part.leave.unpack_sum_part(exec_, home(part), arguments_.dxBCdt);
  }
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenBackward<T, Exec>::packed(const Part& part) const {
  return flat<T, Exec>(exchange_ + blocks_.exchange.old_begin[blocks_.turn(part.number)],
                       plan_.entering(part, arguments_.saving)->sequence_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenBackward<T, Exec>::arrived(const Part& part) const {
  return flat<T, Exec>(arrival_ + blocks_.arrival.old_begin[index(part)],
                       plan_.entering(part, arguments_.saving)->heads_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenBackward<T, Exec>::leaving(const Part& part) const {
  return flat<T, Exec>(exchange_ + blocks_.exchange.new_begin[blocks_.turn(part.number)],
                       part.leave.heads_buffer_size());
}

template <Scalar T, class Exec>
Tensor<T*, Exec> HiddenBackward<T, Exec>::home(const Part& part) const {
  return flat<T, Exec>(arrival_ + blocks_.arrival.new_begin[index(part)], part.leave.sequence_buffer_size());
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenBackward<T, Exec>::input(const Part& part, std::int64_t begin_in_part,
                                                        std::int64_t begin, std::int64_t count) const {
  if (plan_.alone()) return columns(arguments_.xBCdt, begin, count);
  if (lean()) return columns(Tensor<const T***, Exec>(part.enter.heads_view(arrived(part))), begin_in_part, count);
  const auto* const kept = reinterpret_cast<const T*>(arguments_.saved.data() + saved_.arrival);
  return columns(heads_tensor(kept, plan_, plan_.input_width()), begin, count);
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenBackward<T, Exec>::x(const Part& part) const {
  return input(part, 0, part.first_channel, part.channels);
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenBackward<T, Exec>::dt(const Part& part) const {
  return input(part, part.channels, plan_.partition.conv_channels_local() + part.heads.begin, part.heads.count);
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenBackward<T, Exec>::dy(const Part& part) const {
  if (plan_.alone()) return arguments_.dy;
  const Tensor<const T***, Exec> heads = plan_.entering(part, arguments_.saving)->heads_view(arrived(part));
  return lean() ? columns(heads, part.channels + part.heads.count, part.inner) : heads;
}

template <Scalar T, class Exec>
Tensor<T***, Exec> HiddenBackward<T, Exec>::conv_memory(const Part& part) const {
  T* const first = exchange_ + blocks_.exchange.new_begin[blocks_.turn(part.number)];
  return columns(heads_tensor(first, plan_, part.leave.local_width()), 0, part.channels);
}

template <Scalar T, class Exec>
Tensor<const T***, Exec> HiddenBackward<T, Exec>::conv_out(const Part& part) const {
  if (lean()) return conv_memory(part);
  const auto* const kept = reinterpret_cast<const T*>(arguments_.saved.data() + saved_.conv_out);
  return columns(conv_tensor(kept, plan_, plan_.partition.conv_channels_local()), part.first_channel, part.channels);
}

template <Scalar T, class Exec>
Tensor<T***, Exec> HiddenBackward<T, Exec>::dconv_out(const Part& part) const {
  const std::int64_t first = blocks_.exchange.new_begin[blocks_.turn(part.number)];
  return conv_tensor(exchange_ + first + blocks_.dconv[index(part)], plan_, part.channels);
}

template <Scalar T, class Exec>
Tensor<T***, Exec> HiddenBackward<T, Exec>::dinput(const Part& part) const {
  return part.leave.leave_target(arguments_.dxBCdt, leaving(part));
}

#define KRAIT_INSTANTIATE(T, EXEC) template class HiddenBackward<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
