// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_config.hpp>

#include <cmath>

#include <krait/core/error.hpp>

namespace krait {
namespace {

/// No width is near it, and the elements of a weight, and their bytes, can still be counted.
constexpr std::int64_t widest = std::int64_t{1} << 28;

void require_positive(const char* name, std::int64_t value) {
  KRAIT_REQUIRE(ConfigError, 0 < value && value <= widest, "krait::MambaConfig: ", name, " is ", value,
                ", expected a positive number up to ", widest);
}

void require_multiple(const char* what, std::int64_t value, const char* of, std::int64_t divisor) {
  KRAIT_REQUIRE(ConfigError, value % divisor == 0, "krait::MambaConfig: ", what, " (", value,
                ") must be a multiple of ", of, " (", divisor, ")");
}

}  // namespace

void MambaConfig::validate(int tensor_ranks) const {
  require_positive("d_model", d_model);
  require_positive("expand", expand);
  require_positive("head_dim", head_dim);
  require_positive("groups", groups);
  require_positive("d_state", d_state);
  require_positive("chunk_size", chunk_size);
  require_positive("d_conv", d_conv);
  KRAIT_REQUIRE(ConfigError, d_conv <= 16, "krait::MambaConfig: d_conv is ", d_conv, ", expected at most 16");
  KRAIT_REQUIRE(ConfigError, 0 <= heads && heads <= widest, "krait::MambaConfig: heads is ", heads,
                ", expected a positive number up to ", widest, ", or 0 for d_inner / head_dim");
  require_positive("d_inner", d_inner());
  require_positive("groups * d_state", groups * d_state);
  require_multiple("d_inner", d_inner(), "head_dim", head_dim);
  require_multiple("heads", head_count(), "groups", groups);
  require_multiple("heads", head_count(), "the tensor-parallel ranks", tensor_ranks);
  require_multiple("groups", groups, "the tensor-parallel ranks", tensor_ranks);
  KRAIT_REQUIRE(
      ConfigError,
      A_init_range.first > 0 && A_init_range.first <= A_init_range.second && std::isfinite(A_init_range.second),
      "krait::MambaConfig: A_init_range is (", A_init_range.first, ", ", A_init_range.second,
      "), expected 0 < low <= high, both finite");
  KRAIT_REQUIRE(ConfigError, dt_min > 0 && dt_min <= dt_max && std::isfinite(dt_max),
                "krait::MambaConfig: dt_min and dt_max are ", dt_min, " and ", dt_max,
                ", expected 0 < dt_min <= dt_max, both finite");
  KRAIT_REQUIRE(ConfigError, dt_init_floor > 0 && std::isfinite(dt_init_floor), "krait::MambaConfig: dt_init_floor is ",
                dt_init_floor, ", expected a positive number");
  KRAIT_REQUIRE(ConfigError, dt_limit.first >= 0 && dt_limit.first <= dt_limit.second,
                "krait::MambaConfig: dt_limit is (", dt_limit.first, ", ", dt_limit.second,
                "), expected 0 <= low <= high");
  KRAIT_REQUIRE(ConfigError, norm_eps >= 0 && std::isfinite(norm_eps), "krait::MambaConfig: norm_eps is ", norm_eps,
                ", expected a number that is not negative");
  KRAIT_REQUIRE(ConfigError, !conv_init || (*conv_init > 0 && std::isfinite(*conv_init)),
                "krait::MambaConfig: conv_init is ", conv_init.value_or(0), ", expected a positive bound");
  KRAIT_REQUIRE(ConfigError, dt_init == "random", "krait::MambaConfig: dt_init is '", dt_init,
                "', only 'random' is known");
  KRAIT_REQUIRE(ConfigError, dt_scale == 1.0, "krait::MambaConfig: dt_scale is ", dt_scale, ", only 1 is known");
  KRAIT_REQUIRE(ConfigError, state_dtype == StateType::accumulator,
                "krait::MambaConfig: state_dtype is bfloat16, but this version keeps states in the accumulator's type");
}

SequenceOperatorConfig MambaConfig::sequence_operator(int tensor_ranks, Divisibility divisibility) const {
  return {.heads = head_count() / tensor_ranks,
          .head_dim = head_dim,
          .groups = groups / tensor_ranks,
          .d_state = d_state,
          .d_conv = d_conv,
          .chunk_size = chunk_size,
          .activation = activation,
          .dt_limit = dt_limit,
          .divisibility = divisibility};
}

}  // namespace krait
