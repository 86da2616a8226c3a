// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <cmath>
#include <cstddef>
#include <iomanip>

#include "genome_common/figures.hpp"

namespace genome::train {
namespace {

std::int64_t memory_limit(const Report& report) {
  return memory_constant(report) +
         static_cast<std::int64_t>(memory_factor * report.largest_share * static_cast<double>(report.one_rank_bytes));
}

double tokens_per_second(const Report& report) {
  return static_cast<double>(report.length) * static_cast<double>(report.steps) / report.seconds;
}

std::string losses(const Report& report) {
  return text(report.first_loss, "%.4f") + text(report.last.bits_per_base, " -> %.4f bits per base in ") +
         std::to_string(report.last.number) + " steps";
}

/// The highest order of the context models that the loss is below, or -1.
int beaten_order(const Report& report) {
  int order = -1;
  for (std::size_t k = 0; k < report.context_entropies.size(); ++k) {
    if (report.last.bits_per_base < report.context_entropies[k]) order = static_cast<int>(k);
  }
  return order;
}

}  // namespace

std::int64_t memory_constant(const Report& report) { return (std::int64_t{1} << 20) + 2 * report.parameter_bytes; }

void print(std::ostream& out, const Report& report) {
  const auto line = [&](const char* name, const std::string& value) {
    out << "  " << std::left << std::setw(18) << name << value << '\n';
  };
  line("loss", losses(report));
  line("time", text(report.seconds, "%.1f s, ") + text(tokens_per_second(report), "%.0f tokens/s"));
  line("peak activations", std::to_string(report.peak_bytes) + " bytes per rank, " +
                               std::to_string(report.one_rank_bytes) + " bytes on one rank (computed)");
  line("", mebibytes(report.peak_bytes) + " of " + mebibytes(report.one_rank_bytes) + ": " +
               text(static_cast<double>(report.peak_bytes) / static_cast<double>(report.one_rank_bytes), "%.3f") +
               " (at most " + text(memory_factor * report.largest_share, "%.3f") + ", plus " +
               mebibytes(memory_constant(report)) + ")");
}

std::string summary(const Report& report) {
  std::string result = "loss " + losses(report);
  const int order = beaten_order(report);
  if (order >= 0) {
    result += ", below order " + std::to_string(order) +
              text(report.context_entropies[static_cast<std::size_t>(order)], " (%.4f)");
  }
  result += ", " + std::to_string(report.length) + " tokens on " + std::to_string(report.ranks) +
            (report.ranks == 1 ? " rank" : " ranks, equal parameters on all");
  return result + text(tokens_per_second(report), ", %.0f tokens/s");
}

std::vector<std::string> complaints(const Report& report) {
  std::vector<std::string> result;
  const std::string step = "in step " + std::to_string(report.last.number);
  if (!std::isfinite(report.last.bits_per_base)) {
    result.push_back("the loss is not finite " + step + "; a smaller --lr may help");
  } else if (!std::isfinite(report.last.gradient_norm)) {
    result.push_back("the gradient is not finite " + step + "; a smaller --lr may help");
  } else if (report.last.number > 1 && report.last.bits_per_base >= report.first_loss) {
    result.push_back("the loss did not fall: " + losses(report) + "; another --lr or more --steps may help");
  }
  if (!report.parameters_agree) result.emplace_back("the ranks ended with different parameters");
  if (report.peak_bytes > memory_limit(report)) {
    result.push_back("a rank needs " + mebibytes(report.peak_bytes) + " of activations, at most " +
                     mebibytes(memory_limit(report)) + " was expected");
  }
  return result;
}

}  // namespace genome::train
