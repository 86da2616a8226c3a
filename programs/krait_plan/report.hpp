// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "krait_plan/options.hpp"

namespace plan {

/// One table for all rank counts, the fastest of each marked, and the lengths at which that changes.
void print_tables(std::ostream& stream, const Options& options);

/// The same as an array of objects, without the lengths.
void print_json(std::ostream& stream, const Options& options);

/// From this length on a strategy is the fastest.
struct Reign {
  std::int64_t from = 0;
  std::string strategy;

  friend bool operator==(const Reign&, const Reign&) = default;
};

/// Which strategy is the fastest at which length, from two tokens per rank to 2^30. Lengths are found by bisection
/// between neighbours of a grid of two per octave; what comes and goes between them is not seen.
std::vector<Reign> reigns(const Options& options, int ranks);

}  // namespace plan
