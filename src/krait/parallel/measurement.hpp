// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What strategies take when they run, beside what a Planner predicts.

#include <cstdint>
#include <string>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/parallel/planner.hpp>
#include <krait/parallel/strategy.hpp>

namespace krait {

/// A strategy, and for state passing how states are exchanged.
struct Candidate {
  Strategy strategy = Strategy::hidden_parallel;
  StateExchange exchange = StateExchange::automatic;
};

/// Of numbers that differ from rank to rank the largest. Equal on all ranks.
struct Measurement {
  Candidate candidate = {};
  double seconds = 0;   ///< median of the rounds
  double shortest = 0;  ///< of the rounds: a machine's other users only ever add to a time
  /// Median of its time over the mean of all candidates in the same round: what slows down a whole round does not
  /// count.
  double relative = 0;
  double seconds_waited = 0;  ///< of them in waits for other ranks; median
  std::int64_t bytes_sent_per_rank = 0;
  std::int64_t messages = 0;  ///< that a rank sends

  /// As Prediction::name(); "local" of several ranks is "one share".
  [[nodiscard]] std::string name() const;
};

/// Runs the operator in float with every candidate, once in every round, in changing order; a time is the longest of
/// a rank from a barrier to a barrier, so ranks that take turns on a core count all turns. Data and parameters are made
/// up, with decays as `work` assumes; `work` also says whether a backward follows. Strategy::local on several ranks is
/// a rank's part of the tokens by itself, on all ranks at the same time: what the operator would take if nothing had to
/// be handed over.
///
/// Collective. Allocates, and waits for `exec`; its messages appear in the communicator's counters.
///
/// \param rounds  that count; one before them does not
/// \throws LayoutError, ConfigError as the operators do
template <class Exec>
std::vector<Measurement> measure(const Exec& exec, const Communicator& comm, const SequenceLayout& layout,
                                 const DocumentMap& documents, const Workload& work,
                                 const std::vector<Candidate>& candidates, int rounds);

}  // namespace krait
