// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/report.hpp"

#include <cmath>
#include <iomanip>
#include <limits>
#include <ostream>
#include <sstream>

#include "krait_plan/text.hpp"

namespace plan {
namespace {

using krait::Choice;
using krait::Planner;
using krait::Prediction;

std::string bytes(std::int64_t count) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(count);
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return text("%.3g %s", value, units[unit]);
}

Choice choose(const Options& options, int ranks, std::int64_t tokens) {
  return Planner(options.machine).choose(options.workload(ranks, tokens));
}

void print_header(std::ostream& stream, const Options& options) {
  const krait::SequenceOperatorConfig& config = options.config;
  const krait::Machine& machine = options.machine;
  stream << "layer    " << config.heads << " heads of " << config.head_dim << " in " << config.groups
         << (config.groups == 1 ? " group" : " groups") << ", d_state " << config.d_state << ", d_conv "
         << config.d_conv << ", " << (options.scalar_bytes == 2 ? "bf16" : "float") << ", "
         << (options.backward ? "forward and backward" : "forward") << '\n'
         << "work     " << grouped(options.length) << " tokens, " << name_of(options.layout);
  if (options.layout == LayoutKind::zigzag_docs) stream << " of " << grouped(options.documents) << " documents";
  stream << ", batch " << options.batch << '\n'
         << "machine  per rank " << text("%.3g", machine.scan_flops) << " FLOP/s, memory "
         << text("%.3g", machine.memory_bandwidth) << " B/s, network " << text("%.3g", machine.network_bandwidth)
         << " B/s, " << text("%.3g", machine.latency) << " s a message, " << options.threads
         << (options.threads == 1 ? " thread\n" : " threads\n");
}

void print_row(std::ostream& stream, std::int64_t ranks, const Prediction& prediction, bool winner) {
  stream << std::setw(6) << ranks << ' ' << (winner ? '*' : ' ') << ' ' << std::left << std::setw(25)
         << prediction.name() << std::right;
  if (prediction.possible()) {
    stream << std::setw(10) << duration(prediction.seconds) << std::setw(12) << bytes(prediction.bytes_sent_per_rank)
           << std::setw(10) << grouped(prediction.messages) << std::setw(12) << bytes(prediction.memory_bytes_per_rank);
  } else {
    stream << "  cannot run: " << prediction.impossible;
  }
  stream << '\n';
}

}  // namespace

std::vector<Reign> reigns(const Options& options, int ranks) {
  constexpr std::int64_t longest = std::int64_t{1} << 30;
  const auto fastest = [&](std::int64_t tokens) { return choose(options, ranks, tokens).best().name(); };
  std::int64_t before = 2 * std::int64_t{ranks};
  std::vector<Reign> result{{before, fastest(before)}};
  while (before < longest) {
    const std::int64_t next = std::min(longest, std::max(before + 1, before * 181 / 128));  // about sqrt(2)
    const std::string strategy = fastest(next);
    if (strategy != result.back().strategy) {
      std::int64_t low = before;
      std::int64_t high = next;
      while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        (fastest(middle) == result.back().strategy ? low : high) = middle;
      }
      result.push_back({high, fastest(high)});
      before = high;
    } else {
      before = next;
    }
  }
  return result;
}

void print_tables(std::ostream& stream, const Options& options) {
  print_header(stream, options);
  stream << "\n ranks   strategy                       time   sent/rank  messages memory/rank\n";
  for (const std::int64_t ranks : options.ranks) {
    const Choice choice = choose(options, static_cast<int>(ranks), options.length);
    for (std::size_t i = 0; i < choice.predictions.size(); ++i) {
      const Prediction& prediction = choice.predictions[i];
      // That local runs on one rank needs no line for every other number.
      if (prediction.strategy == krait::Strategy::local && ranks > 1) continue;
      print_row(stream, ranks, prediction, i == choice.winner);
    }
  }
  stream << "\nchoice by length of a row, from two tokens per rank to 2^30\n";
  for (const std::int64_t ranks : options.ranks) {
    stream << std::setw(6) << ranks << "   ";
    const std::vector<Reign> found = reigns(options, static_cast<int>(ranks));
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (i > 0) stream << ", from " << grouped(found[i].from) << ' ';
      stream << found[i].strategy;
    }
    stream << '\n';
  }
}

void print_json(std::ostream& stream, const Options& options) {
  stream << std::setprecision(std::numeric_limits<double>::max_digits10) << '[';
  const char* separator = "\n";
  for (const std::int64_t ranks : options.ranks) {
    const Choice choice = choose(options, static_cast<int>(ranks), options.length);
    for (std::size_t i = 0; i < choice.predictions.size(); ++i) {
      const Prediction& prediction = choice.predictions[i];
      if (!prediction.possible()) continue;
      stream << separator << R"(  {"strategy": ")" << prediction.name() << R"(", "layout": ")"
             << name_of(options.layout) << R"(", "ranks": )" << ranks << R"(, "length": )" << options.length
             << R"(, "seconds": )" << prediction.seconds << R"(, "bytes_sent_per_rank": )"
             << prediction.bytes_sent_per_rank << R"(, "messages": )" << prediction.messages
             << R"(, "memory_bytes_per_rank": )" << prediction.memory_bytes_per_rank << R"(, "winner": )"
             << (i == choice.winner ? "true" : "false") << '}';
      separator = ",\n";
    }
  }
  stream << "\n]\n";
}

}  // namespace plan
