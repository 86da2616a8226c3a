// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <vector>

#include "embedding.hpp"
#include "genome_common/sequence.hpp"
#include "mixer_stack.hpp"

namespace genome {

/// The stream, (tokens, d_model), behind all layers for the first `tokens` tokens, computed in double precision by the
/// plain recurrence of Krait's reference operators. Causal, so nothing after them matters.
std::vector<double> reference_prefix(const MixerStack& stack, const Embedding& embedding, const Sequence& sequence,
                                     std::int64_t tokens);

}  // namespace genome
