// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/figures.hpp"
#include "report.hpp"

namespace genome {
namespace {

std::int64_t memory_limit(const Report& report, const Outcome& outcome) {
  return memory_constant +
         static_cast<std::int64_t>(memory_factor * outcome.largest_share * static_cast<double>(report.one_rank_bytes));
}

/// A layer exchanges twice: activations to the heads and back, or the convolution's halo and the states.
std::int64_t expected_exchanges(const Report& report) { return report.ranks > 1 ? 2 * report.layers : 0; }

void add_complaints(const Report& report, const Outcome& outcome, std::vector<std::string>& result) {
  const auto complain = [&](const std::string& what) {
    result.push_back(std::string(krait::name_of(outcome.strategy)) + ": " + what);
  };
  const auto check = [&](const char* name, const std::optional<Difference>& difference, double tolerance) {
    if (difference && !(difference->relative_rms <= tolerance)) {
      complain(std::string("the result differs from ") + name + ": relative RMS " +
               text(difference->relative_rms, "%.2e") + " (at most " + text(tolerance, "%.0e") + "), largest " +
               text(difference->largest, "%.2e"));
    }
  };
  check("the run on one rank", outcome.against_one_rank, one_rank_tolerance);
  check("the double-precision reference", outcome.against_reference, reference_tolerance);
  const std::int64_t limit = memory_limit(report, outcome);
  if (outcome.peak_bytes > limit) {
    complain("a rank needs " + mebibytes(outcome.peak_bytes) + " of activations, at most " + mebibytes(limit) +
             " was expected");
  }
  if (outcome.exchanges != expected_exchanges(report)) {
    complain("the ranks exchanged " + std::to_string(outcome.exchanges) + " times, expected " +
             std::to_string(expected_exchanges(report)));
  }
}

}  // namespace

std::string summary(const Report& report) {
  std::string names;
  std::string speeds;
  for (const Outcome& outcome : report.outcomes) {
    const char* const between = names.empty() ? "" : " and ";
    names += between + std::string(krait::name_of(outcome.strategy));
    speeds += between + text(static_cast<double>(report.length) / outcome.seconds, "%.0f");
  }
  const Outcome& any = report.outcomes.front();
  std::string result = std::to_string(report.length) + " tokens on " + std::to_string(report.ranks) +
                       (report.ranks == 1 ? " rank, " : " ranks, ") + names;
  if (any.against_one_rank) result += ", equal to one rank";
  if (any.against_reference) result += ", equal to the reference";
  return result + ", " + speeds + " tokens/s";
}

std::vector<std::string> complaints(const Report& report) {
  std::vector<std::string> result;
  for (const Outcome& outcome : report.outcomes) add_complaints(report, outcome, result);
  return result;
}

}  // namespace genome
