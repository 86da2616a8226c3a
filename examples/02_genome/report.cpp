// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <iomanip>

#include "genome_common/figures.hpp"

namespace genome {
namespace {

std::string in_words(const Difference& difference, double tolerance) {
  return "relative RMS " + text(difference.relative_rms, "%.2e") + " (at most " + text(tolerance, "%.0e") +
         "), largest " + text(difference.largest, "%.2e");
}

std::int64_t memory_limit(const Report& report) {
  return memory_constant +
         static_cast<std::int64_t>(memory_factor * report.largest_share * static_cast<double>(report.one_rank_bytes));
}

/// Activations cross the ranks twice a layer: to the heads, and back.
std::int64_t expected_exchanges(const Report& report) { return report.ranks > 1 ? 2 * report.layers : 0; }

}  // namespace

void print(std::ostream& out, const Report& report) {
  const auto line = [&](const char* name, const std::string& value) {
    out << "  " << std::left << std::setw(18) << name << value << '\n';
  };
  const double per_layer = static_cast<double>(report.exchanges) / static_cast<double>(report.layers);
  line("tokens per rank",
       std::to_string(report.least_tokens) +
           (report.least_tokens == report.most_tokens ? "" : " to " + std::to_string(report.most_tokens)));
  line("time",
       text(report.seconds, "%.3f s, ") + text(static_cast<double>(report.length) / report.seconds, "%.0f tokens/s"));
  line("sent per rank", mebibytes(report.bytes_sent) + " in all, " + text(per_layer, "%g") + " exchanges a layer");
  line("peak activations", std::to_string(report.peak_bytes) + " bytes per rank, " +
                               std::to_string(report.one_rank_bytes) + " bytes on one rank" +
                               (report.one_rank_measured ? "" : " (computed)"));
  line("", mebibytes(report.peak_bytes) + " of " + mebibytes(report.one_rank_bytes) + ": " +
               text(static_cast<double>(report.peak_bytes) / static_cast<double>(report.one_rank_bytes), "%.3f") +
               " (at most " + text(memory_factor * report.largest_share, "%.3f") + ", plus " +
               mebibytes(memory_constant) + ")");
  if (report.against_one_rank) line("against one rank", in_words(*report.against_one_rank, one_rank_tolerance));
  if (report.against_reference) {
    line("against reference", in_words(*report.against_reference, reference_tolerance) + ", first " +
                                  std::to_string(report.prefix) + " tokens in double precision");
  }
}

std::string summary(const Report& report) {
  std::string result = std::to_string(report.length) + " tokens on " + std::to_string(report.ranks) +
                       (report.ranks == 1 ? " rank" : " ranks");
  if (report.against_one_rank) result += ", equal to one rank";
  if (report.against_reference) result += ", equal to the reference";
  return result + ", " + text(static_cast<double>(report.length) / report.seconds, "%.0f tokens/s");
}

std::vector<std::string> complaints(const Report& report) {
  std::vector<std::string> result;
  const auto check = [&](const char* name, const std::optional<Difference>& difference, double tolerance) {
    if (difference && !(difference->relative_rms <= tolerance)) {
      result.push_back(std::string("the result differs from ") + name + ": " + in_words(*difference, tolerance));
    }
  };
  check("the run on one rank", report.against_one_rank, one_rank_tolerance);
  check("the double-precision reference", report.against_reference, reference_tolerance);
  if (report.peak_bytes > memory_limit(report)) {
    result.push_back("a rank needs " + mebibytes(report.peak_bytes) + " of activations, at most " +
                     mebibytes(memory_limit(report)) + " was expected");
  }
  if (report.exchanges != expected_exchanges(report)) {
    result.push_back("activations were exchanged " + std::to_string(report.exchanges) + " times, expected " +
                     std::to_string(expected_exchanges(report)));
  }
  return result;
}

}  // namespace genome
