// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

/// What the operator of a training forward keeps for its backward. Both give the same gradients, bit for bit.
enum class Saving {
  lean,  ///< as little as possible: the backward communicates and computes again what it needs
  full   ///< what a lean backward would communicate or convolve again
};

}  // namespace krait
