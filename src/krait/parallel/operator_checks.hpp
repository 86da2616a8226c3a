// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Throws ShapeError when a tensor has extents, but no memory behind them. Its size() would not tell: Kokkos calls a
/// View without memory empty.
template <class View>
void require_backed(const std::string& function, const char* name, const View& view) {
  const std::vector<std::int64_t> has = extents(view);
  const bool empty = std::find(has.begin(), has.end(), 0) != has.end();
  KRAIT_REQUIRE(ShapeError, view.data() != nullptr || empty, function, ": ", name, " has no memory");
}

/// Throws ShapeError unless `view` has these extents and memory; one that is optional may be absent.
template <class View>
void require_tensor(const std::string& function, const char* name, const View& view,
                    const std::vector<std::int64_t>& expected, bool optional = false) {
  if (optional && is_absent(view)) return;
  KRAIT_REQUIRE(ShapeError, extents(view) == expected, function, ": ", name, " is ", extents(view), ", expected ",
                expected);
  require_backed(function, name, view);
}

/// Whether two tensors of (row, token, column) share elements; at worst a wrong yes where their strides differ.
template <class X, class Y>
bool share_memory(const X& x, const Y& y) {
  if (x.size() == 0 || y.size() == 0 || x.data() + x.span() <= y.data() || y.data() + y.span() <= x.data())
    return false;
  const bool side_by_side = x.stride(0) == y.stride(0) && x.stride(1) == y.stride(1) && x.stride(2) == 1 &&
                            y.stride(2) == 1;  // columns of one matrix
  const auto gap = static_cast<std::size_t>(std::abs(x.data() - y.data()));
  const auto [left, right] =
      x.data() <= y.data() ? std::pair(x.extent(2), y.extent(2)) : std::pair(y.extent(2), x.extent(2));
  return !(side_by_side && left <= gap && gap + right <= static_cast<std::size_t>(x.stride(1)));
}

/// Throws unless `memory` is contiguous, has so many bytes and is aligned for elements of V.
template <class V, class Memory>
void require_memory(const std::string& function, const char* name, const Memory& memory, std::size_t bytes) {
  KRAIT_REQUIRE(CapacityError, memory.size() >= bytes, function, ": ", name, " has ", memory.size(),
                " bytes, expected at least ", bytes);
  KRAIT_REQUIRE(
      ShapeError,
      bytes == 0 || (memory.stride(0) == 1 && reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(V) == 0),
      function, ": ", name, " must be contiguous and begin at a multiple of ", alignof(V), " bytes");
}

template <Scalar T, class Exec>
void check_parameters(const std::string& function, const SequenceOperatorConfig& config,
                      const SequenceOperatorParameters<T, Exec>& parameters) {
  require_tensor(function, "conv_weight", parameters.conv_weight, {config.conv_channels(), config.d_conv});
  require_tensor(function, "conv_bias", parameters.conv_bias, {config.conv_channels()}, true);
  require_tensor(function, "A_log", parameters.A_log, {config.heads});
  require_tensor(function, "dt_bias", parameters.dt_bias, {config.heads}, true);
  require_tensor(function, "D", parameters.D, {config.heads}, true);
  require_tensor(function, "D_per_channel", parameters.D_per_channel, {config.heads, config.head_dim}, true);
  KRAIT_REQUIRE(ConfigError, is_absent(parameters.D) || is_absent(parameters.D_per_channel), function,
                ": D and D_per_channel are both given, expected at most one");
}

/// Throws ShapeError for a tensor of states, conv or ssm, that is given with other extents.
template <class Conv, class Ssm>
void check_states(const std::string& function, const char* name, const SequenceOperatorConfig& config,
                  const DocumentMap& documents, const Conv& conv, const Ssm& ssm) {
  const std::int64_t n = documents.documents();
  require_tensor(function, (std::string(name) + ".conv").c_str(), conv, {n, config.conv_channels(), config.d_conv - 1},
                 true);
  require_tensor(function, (std::string(name) + ".ssm").c_str(), ssm,
                 {n, config.heads, config.head_dim, config.d_state}, true);
}

/// Checks of one forward call that hold for every strategy. `saved_bytes` are those of a call that saves.
/// \throws LayoutError, ShapeError, ConfigError, CapacityError
template <Scalar T, class Exec>
void check_operator_call(const std::string& function, const SequenceOperatorConfig& config, const Communicator& context,
                         const SequenceLayout& layout, const DocumentMap& documents,
                         const SequenceOperatorParameters<T, Exec>& parameters,
                         const SequenceOperatorArguments<T, Exec>& arguments, std::size_t workspace_bytes,
                         const OperatorRoom& room, std::size_t saved_bytes) {
  layout.require_match(function, context.place());
  documents.require_match(function, layout);
  check_parameters(function, config, parameters);
  const std::int64_t rows = documents.rows();
  require_tensor(function, "xBCdt", arguments.xBCdt, {rows, layout.local_length(), config.input_width()});
  require_tensor(function, "y", arguments.y, {rows, layout.local_length(), config.d_inner()});
  const auto x = columns(arguments.xBCdt, 0, config.d_inner());
  const bool over_x = arguments.overwrites_input() && room.y_over_x && x.data() == arguments.y.data() &&
                      x.stride(0) == arguments.y.stride(0) && x.stride(1) == arguments.y.stride(1) &&
                      arguments.y.stride(2) == 1;
  KRAIT_REQUIRE(ShapeError, over_x || !share_memory(arguments.xBCdt, arguments.y), function,
                ": y shares memory with xBCdt, expected none", room.y_over_x ? ", or with room that of x alone" : "");
  if (arguments.overwrites_input()) {
    KRAIT_REQUIRE(ShapeError,
                  arguments.xBCdt.span_is_contiguous() && (room.y_over_x || arguments.y.span_is_contiguous()), function,
                  ": room is given, but xBCdt or y does not cover contiguous memory");
    KRAIT_REQUIRE(CapacityError, arguments.room.xBCdt >= room.xBCdt && arguments.room.y >= room.y, function,
                  ": room is ", arguments.room.xBCdt, " elements at xBCdt and ", arguments.room.y,
                  " at y, expected at least ", room.xBCdt, " and ", room.y);
  }
  check_states(function, "initial", config, documents, arguments.initial.conv, arguments.initial.ssm);
  check_states(function, "final", config, documents, arguments.final.conv, arguments.final.ssm);
  require_memory<T>(function, "workspace", arguments.workspace, workspace_bytes);
  if (!is_absent(arguments.saved)) require_memory<T>(function, "saved", arguments.saved, saved_bytes);
}

/// The same of one backward call.
template <Scalar T, class Exec>
void check_operator_backward(const std::string& function, const SequenceOperatorConfig& config,
                             const Communicator& context, const SequenceLayout& layout, const DocumentMap& documents,
                             const SequenceOperatorParameters<T, Exec>& parameters,
                             const SequenceOperatorGradients<T, Exec>& gradients,
                             const SequenceOperatorBackwardArguments<T, Exec>& arguments, std::size_t workspace_bytes,
                             std::int64_t room, std::size_t saved_bytes) {
  layout.require_match(function, context.place());
  documents.require_match(function, layout);
  check_parameters(function, config, parameters);
  const auto expect_gradient = [&function](const char* name, const auto& gradient, const auto& parameter) {
    if (is_absent(gradient)) return;
    KRAIT_REQUIRE(ConfigError, !is_absent(parameter), function, ": the gradient of ", name,
                  " is given, but not the parameter");
    require_tensor(function, (std::string("the gradient of ") + name).c_str(), gradient, extents(parameter));
  };
  expect_gradient("conv_weight", gradients.conv_weight, parameters.conv_weight);
  expect_gradient("conv_bias", gradients.conv_bias, parameters.conv_bias);
  expect_gradient("A_log", gradients.A_log, parameters.A_log);
  expect_gradient("dt_bias", gradients.dt_bias, parameters.dt_bias);
  expect_gradient("D", gradients.D, parameters.D);
  expect_gradient("D_per_channel", gradients.D_per_channel, parameters.D_per_channel);
  const std::int64_t rows = documents.rows();
  require_tensor(function, "xBCdt", arguments.xBCdt, {rows, layout.local_length(), config.input_width()});
  require_tensor(function, "dy", arguments.dy, {rows, layout.local_length(), config.d_inner()});
  require_tensor(function, "dxBCdt", arguments.dxBCdt, {rows, layout.local_length(), config.input_width()});
  if (arguments.room > 0) {
    KRAIT_REQUIRE(ShapeError, arguments.dy.span_is_contiguous(), function,
                  ": room is given, but dy does not cover contiguous memory");
    KRAIT_REQUIRE(CapacityError, arguments.room >= room, function, ": room is ", arguments.room,
                  " elements at dy, expected at least ", room);
  }
  check_states(function, "initial", config, documents, arguments.initial.conv, arguments.initial.ssm);
  check_states(function, "dfinal", config, documents, arguments.dfinal.conv, arguments.dfinal.ssm);
  check_states(function, "dinitial", config, documents, arguments.dinitial.conv, arguments.dinitial.ssm);
  require_memory<accumulator_t<T>>(function, "workspace", arguments.workspace, workspace_bytes);
  require_memory<T>(function, "saved", arguments.saved, saved_bytes);
}

}  // namespace krait::impl
