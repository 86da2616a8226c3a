// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

#include <krait/core/error.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Checks of one call that hold for every strategy.
/// \throws LayoutError, ShapeError, ConfigError, CapacityError
template <Scalar T, class Exec>
void check_operator_call(const std::string& function, const SequenceOperatorConfig& config, const Communicator& context,
                         const SequenceLayout& layout, const DocumentMap& documents,
                         const SequenceOperatorParameters<T, Exec>& parameters,
                         const SequenceOperatorArguments<T, Exec>& arguments, std::size_t workspace_bytes,
                         const OperatorRoom& room) {
  using Extents = std::vector<std::int64_t>;
  const auto expect = [&function](const char* name, const auto& view, const Extents& expected, bool optional) {
    if (optional && is_absent(view)) return;
    KRAIT_REQUIRE(ShapeError, extents(view) == expected, function, ": ", name, " is ", extents(view), ", expected ",
                  expected);
    KRAIT_REQUIRE(ShapeError, view.data() != nullptr || view.size() == 0, function, ": ", name, " has no memory");
  };
  layout.require_match(function, context.place());
  documents.require_match(function, layout);
  expect("conv_weight", parameters.conv_weight, {config.conv_channels(), config.d_conv}, false);
  expect("conv_bias", parameters.conv_bias, {config.conv_channels()}, true);
  expect("A_log", parameters.A_log, {config.heads}, false);
  expect("dt_bias", parameters.dt_bias, {config.heads}, true);
  expect("D", parameters.D, {config.heads}, true);
  expect("D_per_channel", parameters.D_per_channel, {config.heads, config.head_dim}, true);
  KRAIT_REQUIRE(ConfigError, is_absent(parameters.D) || is_absent(parameters.D_per_channel), function,
                ": D and D_per_channel are both given, expected at most one");
  expect("xBCdt", arguments.xBCdt, {documents.rows(), layout.local_length(), config.input_width()}, false);
  expect("y", arguments.y, {documents.rows(), layout.local_length(), config.d_inner()}, false);
  if (arguments.overwrites_input()) {
    KRAIT_REQUIRE(ShapeError, arguments.xBCdt.span_is_contiguous() && arguments.y.span_is_contiguous(), function,
                  ": room is given, but xBCdt or y does not cover contiguous memory");
    KRAIT_REQUIRE(CapacityError, arguments.room.xBCdt >= room.xBCdt && arguments.room.y >= room.y, function,
                  ": room is ", arguments.room.xBCdt, " elements at xBCdt and ", arguments.room.y,
                  " at y, expected at least ", room.xBCdt, " and ", room.y);
  }
  KRAIT_REQUIRE(CapacityError, arguments.workspace.size() >= workspace_bytes, function, ": workspace has ",
                arguments.workspace.size(), " bytes, expected at least ", workspace_bytes);
  KRAIT_REQUIRE(
      ShapeError,
      workspace_bytes == 0 || (arguments.workspace.stride(0) == 1 &&
                               reinterpret_cast<std::uintptr_t>(arguments.workspace.data()) % alignof(T) == 0),
      function, ": workspace must be contiguous and begin at a multiple of ", alignof(T), " bytes");
}

}  // namespace krait::impl
