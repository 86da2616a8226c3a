// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/sequence_operator.hpp>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/parallel/hidden_parallel.hpp>
#include <krait/parallel/local.hpp>

namespace krait {

const char* name_of(Strategy strategy) {
  switch (strategy) {
    case Strategy::automatic:
      return "automatic";
    case Strategy::local:
      return "local";
    case Strategy::hidden_parallel:
      return "hidden_parallel";
  }
  return "unknown";
}

Strategy resolve(Strategy strategy, int ranks) {
  if (strategy != Strategy::automatic) return strategy;
  return ranks == 1 ? Strategy::local : Strategy::hidden_parallel;
}

template <Scalar T, class Exec>
std::unique_ptr<SequenceOperator<T, Exec>> make_sequence_operator(Strategy strategy,
                                                                  const SequenceOperatorConfig& config) {
  KRAIT_REQUIRE(ConfigError, strategy != Strategy::automatic,
                "krait::make_sequence_operator: the strategy is automatic, expected one from krait::resolve()");
  if (strategy == Strategy::local) return std::make_unique<Local<T, Exec>>(config);
  return std::make_unique<HiddenParallel<T, Exec>>(config);
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                              \
  template std::unique_ptr<SequenceOperator<T, EXEC>> make_sequence_operator<T, EXEC>(Strategy, \
                                                                                      const SequenceOperatorConfig&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
