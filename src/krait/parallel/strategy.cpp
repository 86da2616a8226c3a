// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/strategy.hpp>

namespace krait {

const char* name_of(Strategy strategy) {
  switch (strategy) {
    case Strategy::automatic:
      return "automatic";
    case Strategy::local:
      return "local";
    case Strategy::hidden_parallel:
      return "hidden_parallel";
    case Strategy::state_passing:
      return "state_passing";
  }
  return "unknown";
}

const char* name_of(StateExchange exchange) {
  switch (exchange) {
    case StateExchange::automatic:
      return "automatic";
    case StateExchange::all_gather:
      return "all_gather";
    case StateExchange::doubling:
      return "doubling";
    case StateExchange::chain:
      return "chain";
  }
  return "unknown";
}

}  // namespace krait
