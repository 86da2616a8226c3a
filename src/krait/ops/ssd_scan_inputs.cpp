// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <cstdint>
#include <krait/core/error.hpp>
#include <krait/ops/ssd_scan_inputs.hpp>

namespace krait::impl {

SsdScanOptions complete_scan_options(const char* function, const SsdScanShape& shape, SsdScanOptions options) {
  const auto require = [&](bool condition, const char* name, auto value, const char* expected) {
    KRAIT_REQUIRE(ConfigError, condition, function, ": ", name, " = ", value, ", expected ", expected);
  };
  require(shape.batch >= 0, "batch", shape.batch, "0 or more");
  require(shape.length >= 0, "length", shape.length, "0 or more");
  require(shape.heads >= 1, "heads", shape.heads, "1 or more");
  require(shape.head_dim >= 1, "head_dim", shape.head_dim, "1 or more");
  require(shape.groups >= 1, "groups", shape.groups, "1 or more");
  require(shape.d_state >= 1, "d_state", shape.d_state, "1 or more");
  require(options.chunk_size >= 1, "chunk_size", options.chunk_size, "1 or more");
  require(options.segments >= 0, "segments", options.segments, "0 or more");
  require(options.heads_per_group >= 0, "heads_per_group", options.heads_per_group, "0 or more");
  require(options.first_head >= 0, "first_head", options.first_head, "0 or more");
  KRAIT_REQUIRE(ConfigError, options.dt_min <= options.dt_max, function, ": the range of the step size is [",
                options.dt_min, ", ", options.dt_max, "], expected dt_min <= dt_max");
  KRAIT_REQUIRE(ConfigError, options.heads_per_group > 0 || shape.heads % shape.groups == 0, function,
                ": heads = ", shape.heads, " are not divisible by groups = ", shape.groups,
                "; set heads_per_group where heads begin or end inside a group");
  if (options.heads_per_group == 0) options.heads_per_group = shape.heads / shape.groups;
  const std::int64_t last_group = (options.first_head + shape.heads - 1) / options.heads_per_group;
  KRAIT_REQUIRE(ConfigError, last_group < shape.groups, function, ": heads ", options.first_head, " to ",
                options.first_head + shape.heads - 1, " of ", options.heads_per_group, " per group read group ",
                last_group, ", expected less than groups = ", shape.groups);
  return options;
}

}  // namespace krait::impl
