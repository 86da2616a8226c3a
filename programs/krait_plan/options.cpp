// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/options.hpp"

#include <krait/core/error.hpp>
#include <limits>
#include <map>
#include <utility>

#include "common/option_parser.hpp"

namespace plan {
namespace {

using command_line::choice;
using command_line::number;
using command_line::numbers;
using command_line::OptionParser;
using command_line::real;
using krait::SequenceOperatorConfig;

constexpr std::int64_t most_ranks = 1 << 16;
constexpr std::int64_t most_tokens = std::int64_t{1} << 40;
constexpr std::int64_t most_documents = 1 << 20;

const std::map<std::string, SequenceOperatorConfig>& presets() {
  static const std::map<std::string, SequenceOperatorConfig> known = {
      {"nemotron_h_8b", {.heads = 128, .head_dim = 64, .groups = 8, .d_state = 128}},
      {"mamba2_2p7b", {.heads = 80, .head_dim = 64, .groups = 1, .d_state = 128}},
      {"mamba2_130m", {.heads = 24, .head_dim = 64, .groups = 1, .d_state = 128}}};
  return known;
}

/// Takes a name, so that --heads and the others may stand before it.
OptionParser::Setter preset(std::string& target) {
  std::map<std::string, std::string> names;
  for (const auto& [name, config] : presets()) names[name] = name;
  return choice<std::string>(target, names);
}

}  // namespace

krait::Workload Options::workload(int rank_count, std::int64_t tokens) const {
  krait::Workload result;
  result.config = config;
  switch (layout) {
    case LayoutKind::contiguous:
      result.sharding = krait::Sharding::contiguous(rank_count, tokens);
      break;
    case LayoutKind::zigzag:
      result.sharding = krait::Sharding::zigzag(rank_count, tokens);
      break;
    case LayoutKind::zigzag_docs: {
      std::vector<std::int64_t> lengths(static_cast<std::size_t>(documents), tokens / documents);
      for (std::int64_t d = 0; d < tokens % documents; ++d) ++lengths[static_cast<std::size_t>(d)];
      result.sharding = krait::Sharding::zigzag_docs(rank_count, lengths);
    }
  }
  result.batch = batch;
  result.scalar_bytes = scalar_bytes;
  result.threads = threads;
  result.backward = backward;
  result.summary_visits = summary_visits;
  return result;
}

Options parse_options(int argc, const char* const* argv) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  constexpr double fastest = 1e30;
  Options options;
  for (std::int64_t r = 1; r <= 4096; r *= 2) options.ranks.push_back(r);
  SequenceOperatorConfig given{.heads = 0, .head_dim = 0, .groups = 0, .d_state = 0, .d_conv = 0};
  OptionParser parser;
  parser.add("--preset", preset(options.preset));
  parser.add("--heads", number(given.heads, 1, most));
  parser.add("--head-dim", number(given.head_dim, 1, most));
  parser.add("--groups", number(given.groups, 1, most));
  parser.add("--d-state", number(given.d_state, 1, most));
  parser.add("--d-conv", number(given.d_conv, 1, 16));
  parser.add_flag("--uneven", [&given] { given.divisibility = krait::Divisibility::uneven; });
  parser.add("--length", number(options.length, 1, most_tokens));
  parser.add("--batch", number(options.batch, 1, most));
  parser.add("--ranks", numbers(options.ranks, 1, most_ranks));
  parser.add("--layout", choice<LayoutKind>(options.layout, {{"contiguous", LayoutKind::contiguous},
                                                             {"zigzag", LayoutKind::zigzag},
                                                             {"zigzag_docs", LayoutKind::zigzag_docs}}));
  parser.add("--documents", number(options.documents, 1, most_documents));
  parser.add("--scalar", choice<std::int64_t>(options.scalar_bytes, {{"float", 4}, {"bf16", 2}}));
  parser.add("--threads", number(options.threads, 1, most));
  parser.add_flag("--backward", [&options] { options.backward = true; });
  parser.add("--summary-visits", real(options.summary_visits, 0, 1, /*least_too=*/true));
  parser.add("--flops", real(options.machine.scan_flops, 0, fastest));
  parser.add("--memory-bandwidth", real(options.machine.memory_bandwidth, 0, fastest));
  parser.add("--bandwidth", real(options.machine.network_bandwidth, 0, fastest));
  parser.add("--latency", real(options.machine.latency, 0, fastest));
  parser.add_flag("--json", [&options] { options.json = true; });
  parser.add_flag("--help", [&options] { options.help = true; });
  parser.parse(argc, argv);

  options.config = presets().at(options.preset);
  const auto take = [&](std::int64_t SequenceOperatorConfig::* member) {
    if (given.*member > 0) options.config.*member = given.*member;
  };
  take(&SequenceOperatorConfig::heads);
  take(&SequenceOperatorConfig::head_dim);
  take(&SequenceOperatorConfig::groups);
  take(&SequenceOperatorConfig::d_state);
  take(&SequenceOperatorConfig::d_conv);
  options.config.divisibility = given.divisibility;
  if (options.config.heads % options.config.groups != 0) {
    throw krait::ConfigError("--heads is " + std::to_string(options.config.heads) + " and --groups is " +
                             std::to_string(options.config.groups) + "; the groups must divide the heads");
  }
  options.config.validate();
  return options;
}

std::string help_text() {
  std::string names;
  for (const auto& [name, config] : presets()) names += (names.empty() ? "" : ", ") + name;
  return "krait-plan: which strategy suits a Mamba-2 layer that is split over ranks, predicted from its shape\n"
         "\n"
         "usage: krait-plan [options]\n"
         "\n"
         "the layer\n"
         "  --preset NAME            " +
         names +
         " (nemotron_h_8b)\n"
         "  --heads N  --head-dim N  --groups N  --d-state N  --d-conv N\n"
         "                           instead of the preset's\n"
         "  --uneven                 heads and groups need not divide by the ranks\n"
         "the work\n"
         "  --length N               tokens of a row (32768)\n"
         "  --batch N                rows (1)\n"
         "  --ranks N[,N...]         (1,2,4,...,4096)\n"
         "  --layout KIND            contiguous, zigzag or zigzag_docs (zigzag)\n"
         "  --documents N            equal documents of a zigzag_docs row (16)\n"
         "  --scalar TYPE            float or bf16 (bf16); states are float\n"
         "  --backward               a forward and its backward, instead of a forward\n"
         "  --summary-visits X       part of its tokens that a segment's summary visits, 0 to 1 (0.2)\n"
         "the machine, one rank of it\n"
         "  --threads N              threads among which the scan shares rows and heads (1)\n"
         "  --flops X                operations per second of the scan (5e11)\n"
         "  --memory-bandwidth X     bytes per second of a copy, read and written ones (5e10)\n"
         "  --bandwidth X            bytes per second sent (1e10)\n"
         "  --latency X              seconds that a message costs (5e-6)\n"
         "the answer\n"
         "  --json                   an array of objects instead of tables; strategies that cannot run are left out\n"
         "  --help                   this text\n"
         "\n"
         "Bytes and messages are those that a rank sends, memory that of the operator; of the rank that has most.\n"
         "docs/parallelism.md has the formulas.\n";
}

}  // namespace plan
