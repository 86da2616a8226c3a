// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <krait/layout/sequence_layout.hpp>

#include "genome_common/program.hpp"
#include "genome_common/sequence.hpp"

namespace genome::train {

using Symbols = Kokkos::View<const std::int32_t*, Exec>;

inline constexpr std::int32_t no_target = -1;

/// This rank's share of a sequence: the symbol at each local position, and the one that follows it in the sequence,
/// whichever rank holds that. The last token of the sequence has no target.
struct Tokens {
  Symbols inputs;
  Symbols targets;
  std::int64_t predictions = 0;  ///< targets on all ranks together
};

/// \throws krait::ConfigError when the sequence is too short to predict anything
Tokens make_tokens(const Exec& exec, const krait::SequenceLayout& layout, const Sequence& sequence);

}  // namespace genome::train
