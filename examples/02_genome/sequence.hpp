// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <krait/comm/communicator.hpp>
#include <string>
#include <vector>

#include "bases.hpp"
#include "options.hpp"

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
Sequence make_sequence(const Options& options);

/// Runs `make` on rank 0 and gives its outcome to all ranks: the sequence, or the krait::FileError, so that a bad file
/// stops all of them together. Collective.
Sequence on_all_ranks(const krait::Communicator& world, const std::function<Sequence()>& make);

}  // namespace genome
