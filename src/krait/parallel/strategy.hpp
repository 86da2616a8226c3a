// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

/// How convolution and scan run over the ranks of a communicator. All give the same numbers.
enum class Strategy {
  automatic,       ///< `local` on one rank, else `hidden_parallel`
  local,           ///< one rank, no communication
  hidden_parallel  ///< exchange tokens for heads, run whole sequences of some heads, exchange back
};

/// "local", "hidden_parallel" ...
const char* name_of(Strategy strategy);

}  // namespace krait
