// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

/// What follows the convolution. `silu` is v * sigmoid(v), also called swish.
enum class Activation { none, silu };

}  // namespace krait
