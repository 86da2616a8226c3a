// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <algorithm>
#include <iomanip>

#include "genome_common/figures.hpp"

namespace genome {
namespace {

using Compared = std::optional<Difference> Outcome::*;

bool any_compared(const Report& report, Compared difference) {
  return std::any_of(report.outcomes.begin(), report.outcomes.end(),
                     [=](const Outcome& outcome) { return (outcome.*difference).has_value(); });
}

}  // namespace

void print(std::ostream& out, const Report& report) {
  constexpr int name_width = 18;
  constexpr int cell_width = 17;
  const auto row = [&](const char* name, const std::string& note, const auto& cell_of) {
    out << "  " << std::left << std::setw(name_width) << name << std::right;
    for (const Outcome& outcome : report.outcomes) out << std::setw(cell_width) << cell_of(outcome);
    out << (note.empty() ? "" : "  ") << note << '\n';
  };
  const auto relative_rms_row = [&](const char* name, double tolerance, const std::string& note, Compared difference) {
    if (!any_compared(report, difference)) return;
    row(name, "relative RMS, at most " + text(tolerance, "%.0e") + note, [=](const Outcome& outcome) {
      return outcome.*difference ? text((outcome.*difference)->relative_rms, "%.2e") : "-";
    });
  };
  const auto tokens = static_cast<double>(report.length);
  const auto layers = static_cast<double>(report.layers);
  const auto one_rank = static_cast<double>(report.one_rank_bytes);

  out << "  " << std::left << std::setw(name_width) << "tokens per rank" << report.least_tokens
      << (report.least_tokens == report.most_tokens ? "" : " to " + std::to_string(report.most_tokens)) << '\n';
  row("strategy", "", [](const Outcome& outcome) { return krait::name_of(outcome.strategy); });
  row("time", "", [](const Outcome& outcome) { return text(outcome.seconds, "%.3f s"); });
  row("tokens/s", "", [=](const Outcome& outcome) { return text(tokens / outcome.seconds, "%.0f"); });
  row("sent per rank", "in all", [](const Outcome& outcome) { return mebibytes(outcome.bytes_sent); });
  row("exchanges", "a layer",
      [=](const Outcome& outcome) { return text(static_cast<double>(outcome.exchanges) / layers, "%g"); });
  row("peak activations",
      "bytes per rank, " + std::to_string(report.one_rank_bytes) + " bytes on one rank" +
          (report.one_rank_measured ? "" : " (computed)"),
      [](const Outcome& outcome) { return outcome.peak_bytes; });
  row("", "of " + mebibytes(report.one_rank_bytes),
      [](const Outcome& outcome) { return mebibytes(outcome.peak_bytes); });
  row("", "of one rank's",
      [=](const Outcome& outcome) { return text(static_cast<double>(outcome.peak_bytes) / one_rank, "%.3f"); });
  row("at most", "of one rank's, plus " + mebibytes(memory_constant),
      [](const Outcome& outcome) { return text(memory_factor * outcome.largest_share, "%.3f"); });
  relative_rms_row("against one rank", one_rank_tolerance, "", &Outcome::against_one_rank);
  relative_rms_row("against reference", reference_tolerance,
                   ", first " + std::to_string(report.prefix) + " tokens in double precision",
                   &Outcome::against_reference);
}

}  // namespace genome
