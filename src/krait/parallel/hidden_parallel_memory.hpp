// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Where the parts of a call of HiddenParallel lie in its memory, and tensors of what lies there.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/hidden_parallel_plan.hpp>
#include <krait/parallel/relay.hpp>

namespace krait::impl {

template <class V, class Exec>
Tensor<V*, Exec> flat(V* data, std::int64_t count) {
  return make_tensor<V*, Exec, 1>(data, {count});
}

/// Memory as (b, length, width), rows of a token side by side as in a heads buffer.
template <class V, class T, class Exec>
Tensor<V***, Exec> heads_tensor(V* data, const HiddenExchanges<T, Exec>& plan, std::int64_t width) {
  return make_tensor<V***, Exec, 3>(data, {plan.rows, plan.length, width}, {width, plan.rows * width, 1});
}

/// Memory as the output of the convolution, of all or of some channels.
template <class V, class T, class Exec>
Tensor<V***, Exec> conv_tensor(V* data, const HiddenExchanges<T, Exec>& plan, std::int64_t channels) {
  return make_tensor<V***, Exec, 3>(data, {plan.rows, plan.length, channels});
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

/// Parts begin at multiples of 128 bytes or more.
constexpr std::int64_t aligned(std::int64_t elements) { return (elements + 127) / 128 * 128; }

/// Aligned sizes, `size` of every part.
template <class Parts, class Size>
std::vector<std::int64_t> sizes_of(const Parts& parts, const Size& size) {
  std::vector<std::int64_t> sizes;
  for (const auto& part : parts) sizes.push_back(aligned(size(part)));
  return sizes;
}

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
struct HiddenBlocks {
  using Part = HeadPart<T, Exec>;
  Relay exchange;  // from sequence buffers to conv_out
  Relay arrival;   // from what is received to what comes home
  std::vector<std::int64_t> y_begin;
  std::int64_t y_out = 0;

  explicit HiddenBlocks(const HiddenExchanges<T, Exec>& plans)
      : exchange(sizes_of(plans.parts, [](const Part& part) { return part.enter.sequence_buffer_size(); }),
                 sizes_of(plans.parts, [](const Part& part) { return part.conv_elements(); })),
        arrival(sizes_of(plans.parts, [](const Part& part) { return part.enter.heads_buffer_size(); }),
                sizes_of(plans.parts, [](const Part& part) { return part.leave.sequence_buffer_size(); })) {
    for (const std::int64_t size :
         sizes_of(plans.parts, [](const Part& part) { return part.leave.heads_buffer_size(); })) {
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
struct HiddenSaved {
  std::size_t arrival = 0;
  std::size_t conv_out = 0;
  std::size_t bytes = 0;

  explicit HiddenSaved(const HiddenExchanges<T, Exec>& plans) {
    WorkspaceLayout space;
    arrival = space.add<T>(plans.alone() ? 0 : plans.places() * plans.input_width());
    conv_out = space.add<T>(plans.conv_elements());
    bytes = space.bytes();
  }
};

/// The same as HiddenBlocks of a backward call. Given room, the arrival lies in the caller's dy.
///
///     exchange: first, then behind it dconv_out      arrival
///     enter   sequence buffer                    ->  heads buffer: x | B | C | dt | dy, or dy
///     conv    conv_out                           <-  "
///     scan    dconv_out, first: ddt              <-  ", conv_out
///     conv    first: dx | dB | dC | ddt          <-  ", dconv_out
///     leave   "                                  ->  sequence buffer of the way back  -->  dxBCdt
///
/// conv_out lies in columns x | B | C of rows that have room for dt, so that the gradient of dt can already be stored
/// where it belongs. After a forward that saved everything it lies there, with what arrived.
///
/// B and C, where they are a part by themselves, enter first, for all blocks of heads need them, and leave last, for
/// all add to their gradients.
template <Scalar T, class Exec>
struct HiddenGradientBlocks {
  using Part = GradientPart<T, Exec>;
  Relay exchange;                   // in the order in which parts enter
  Relay arrival;                    // in the order in which they leave
  std::vector<std::int64_t> dconv;  // of every part: elements from the beginning of its first
  std::size_t scratch_bytes;

  HiddenGradientBlocks(const HiddenExchanges<T, Exec>& plans, Saving saving, std::size_t scratch)
      : exchange(entering_order(sizes_of(plans.gradient_parts,
                                         [&](const Part& part) {
                                           const auto* const entering = plans.entering(part, saving);
                                           return entering == nullptr ? 0 : entering->sequence_buffer_size();
                                         })),
                 entering_order(sizes_of(plans.gradient_parts,
                                         [&](const Part& part) {
                                           return first(plans, part, saving) + aligned(plans.places() * part.channels);
                                         }))),
        arrival(sizes_of(plans.gradient_parts,
                         [&](const Part& part) {
                           const auto* const entering = plans.entering(part, saving);
                           return entering == nullptr ? 0 : entering->heads_buffer_size();
                         }),
                sizes_of(plans.gradient_parts, [](const Part& part) { return part.leave.sequence_buffer_size(); })),
        scratch_bytes(scratch) {
    for (const Part& part : plans.gradient_parts) dconv.push_back(first(plans, part, saving));
  }

  /// Of part k, among those that enter.
  [[nodiscard]] std::size_t turn(std::int64_t k) const { return (static_cast<std::size_t>(k) + 1) % dconv.size(); }
  [[nodiscard]] std::int64_t elements(bool overwrite_dy) const {
    return exchange.size + (overwrite_dy ? 0 : arrival.size);
  }
  /// Relays first, then the scratch.
  [[nodiscard]] std::size_t of_workspace(bool overwrite_dy) const {
    return static_cast<std::size_t>(elements(overwrite_dy)) * sizeof(T) + scratch_bytes;
  }

 private:
  static std::vector<std::int64_t> entering_order(std::vector<std::int64_t> sizes) {
    std::rotate(sizes.begin(), sizes.end() - 1, sizes.end());
    return sizes;
  }
  static std::int64_t first(const HiddenExchanges<T, Exec>& plans, const Part& part, Saving saving) {
    const bool in_caller = plans.alone() && saving == Saving::full;  // dxBCdt is written, conv_out is saved
    return in_caller ? 0 : aligned(plans.places() * part.leave.local_width());
  }
};

}  // namespace krait::impl
