// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <vector>

#include "genome_common/sequence.hpp"

namespace genome::train {

/// Entropies of the next symbol given the k symbols before it, k = 0 ... highest_order, in bits per base, by the
/// frequencies of this very sequence: what a table of that many rows would reach on it. Orders without a single
/// prediction are 0.
///
///     H_k = - sum_(context, next) n(context, next) / n log2( n(context, next) / n(context) )
std::vector<double> context_entropies(const Sequence& sequence, int highest_order);

}  // namespace genome::train
