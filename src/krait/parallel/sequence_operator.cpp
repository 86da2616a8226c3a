// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/sequence_operator.hpp>

#include <limits>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/parallel/hidden_parallel.hpp>
#include <krait/parallel/local.hpp>
#include <krait/parallel/state_passing.hpp>

namespace krait {

void SequenceOperatorConfig::validate() const {
  static constexpr const char* name = "krait::SequenceOperatorConfig: ";
  // Widths are products of two of these; further products with lengths must not overflow either.
  const auto require_extent = [](const char* what, std::int64_t value) {
    KRAIT_REQUIRE(ConfigError, 1 <= value && value <= std::numeric_limits<std::int32_t>::max(), name, what, " is ",
                  value, ", expected a positive number below 2^31");
  };
  require_extent("heads", heads);
  require_extent("head_dim", head_dim);
  require_extent("groups", groups);
  require_extent("d_state", d_state);
  require_extent("chunk_size", chunk_size);
  require_extent("d_inner (heads * head_dim)", d_inner());
  require_extent("groups * d_state", groups * d_state);
  KRAIT_REQUIRE(ConfigError, heads % groups == 0, name, heads, " heads do not divide by ", groups, " groups");
  KRAIT_REQUIRE(ConfigError, 1 <= d_conv && d_conv <= 16, name, "d_conv is ", d_conv, ", expected 1 to 16");
  KRAIT_REQUIRE(ConfigError, 0 <= head_blocks && head_blocks <= heads, name, "head_blocks is ", head_blocks,
                ", expected 0 to ", heads, ", the heads");
  KRAIT_REQUIRE(ConfigError, dt_limit.first <= dt_limit.second, name, "dt_limit is (", dt_limit.first, ", ",
                dt_limit.second, "), expected low <= high");
}

template <Scalar T, class Exec>
std::unique_ptr<SequenceOperator<T, Exec>> make_sequence_operator(Strategy strategy,
                                                                  const SequenceOperatorConfig& config) {
  KRAIT_REQUIRE(ConfigError, strategy != Strategy::automatic,
                "krait::make_sequence_operator: the strategy is automatic, expected one that krait::Planner chose");
  if (strategy == Strategy::local) return std::make_unique<Local<T, Exec>>(config);
  if (strategy == Strategy::hidden_parallel) return std::make_unique<HiddenParallel<T, Exec>>(config);
  return std::make_unique<StatePassing<T, Exec>>(config);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                              \
  template std::unique_ptr<SequenceOperator<T, EXEC>> make_sequence_operator<T, EXEC>(Strategy, \
                                                                                      const SequenceOperatorConfig&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
