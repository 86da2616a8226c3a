// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <string>
#include <vector>

#include "genome_common/bases.hpp"
#include "genome_common/input_options.hpp"

namespace genome {

/// The input: some bases, which may be repeated to a greater length.
struct Sequence {
  std::string source;       ///< where the bases come from, for the report
  std::vector<Base> bases;  ///< never empty
  std::int64_t length = 0;  ///< tokens

  [[nodiscard]] Base at(std::int64_t token) const { return bases[static_cast<std::size_t>(token) % bases.size()]; }
};

/// What the options ask for, read or made on this rank.
/// \throws krait::FileError see read_fasta()
Sequence make_sequence(const InputOptions& options);

/// The same, read or made on rank 0 and given to all; a bad file stops all ranks together. Collective.
Sequence make_sequence(const krait::Communicator& world, const InputOptions& options);

}  // namespace genome
