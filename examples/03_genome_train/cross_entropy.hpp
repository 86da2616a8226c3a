// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include "tensors.hpp"
#include "tokens.hpp"

namespace genome::train {

/// The loss of each token in nats, -log softmax(logits)[target], or 0 without a target; and in the place of the logits,
/// (1, l, symbols), the gradient of `scale` times their sum:  scale (softmax(logits) - onehot(target)).
template <class T>
void cross_entropy(const Exec& exec, const Symbols& targets, double scale, const Hidden<T>& logits,
                   const Array<T>& losses);

/// The sum in double, in the order of the tokens. Waits for `exec`.
template <class T>
double sum_of(const Exec& exec, const Array<T>& losses);

}  // namespace genome::train
