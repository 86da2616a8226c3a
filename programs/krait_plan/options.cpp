// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/options.hpp"

#include <krait/core/error.hpp>
#include <limits>
#include <map>
#include <utility>

#include "common/option_parser.hpp"
#include "krait_plan/machine_file.hpp"

namespace plan {
namespace {

using command_line::choice;
using command_line::number;
using command_line::numbers;
using command_line::OptionParser;
using command_line::path;
using command_line::real;
using krait::Machine;
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

void scale(Machine& machine, double factor, std::initializer_list<double Machine::*> members) {
  for (const auto member : members) machine.*member *= factor;
}

}  // namespace

const char* name_of(LayoutKind layout) {
  switch (layout) {
    case LayoutKind::contiguous:
      return "contiguous";
    case LayoutKind::zigzag:
      return "zigzag";
    default:
      return "zigzag_docs";
  }
}

std::string Options::shape_name() const {
  const SequenceOperatorConfig& known = presets().at(preset);
  if (known.heads == config.heads && known.head_dim == config.head_dim && known.groups == config.groups &&
      known.d_state == config.d_state)
    return preset;
  return std::to_string(config.heads) + " heads of " + std::to_string(config.head_dim) + ", " +
         std::to_string(config.groups) + " groups, d_state " + std::to_string(config.d_state);
}

std::vector<std::int64_t> Options::document_lengths(std::int64_t tokens) const {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(documents), tokens / documents);
  for (std::int64_t d = 0; d < tokens % documents; ++d) ++lengths[static_cast<std::size_t>(d)];
  return lengths;
}

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
    case LayoutKind::zigzag_docs:
      result.sharding = krait::Sharding::zigzag_docs(rank_count, document_lengths(tokens));
  }
  result.batch = batch;
  result.scalar_bytes = scalar_bytes;
  result.threads = threads;
  result.backward = backward;
  result.decay = decay;
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
  parser.add("--decay", choice<krait::Decay>(
                            options.decay, {{"initialised", krait::Decay::initialised}, {"slow", krait::Decay::slow}}));
  std::string machine_file;
  double flops = 0;
  double memory_bandwidth = 0;
  double bandwidth = 0;
  double latency = 0;
  parser.add("--machine", path(machine_file));
  parser.add("--flops", real(flops, 0, fastest));
  parser.add("--memory-bandwidth", real(memory_bandwidth, 0, fastest));
  parser.add("--bandwidth", real(bandwidth, 0, fastest));
  parser.add("--latency", real(latency, 0, fastest));
  parser.add_flag("--json", [&options] { options.json = true; });
  for (const auto& [name, task] : {std::pair("--calibrate", Task::calibrate),
                                   {"--check", Task::check},
                                   {"--check-grid", Task::check_grid},
                                   {"--help", Task::help}})
    parser.add_flag(name, [&options, task = task] { options.task = task; });
  parser.parse(argc, argv);

  Machine& machine = options.machine;
  if (!machine_file.empty()) machine = read_machine(machine_file);
  // What is not asked for one by one keeps its proportion.
  if (flops > 0)
    scale(machine, flops / machine.scan_flops,
          {&Machine::scan_flops, &Machine::scan_backward_flops, &Machine::summary_flops});
  if (memory_bandwidth > 0)
    scale(machine, memory_bandwidth / machine.memory_bandwidth,
          {&Machine::memory_bandwidth, &Machine::pack_bandwidth, &Machine::conv_bandwidth,
           &Machine::conv_backward_bandwidth});
  if (bandwidth > 0) machine.network_bandwidth = bandwidth;
  if (latency > 0) machine.latency = latency;

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
         "       mpirun -n RANKS krait-plan --check [options]\n"
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
         "  --decay KIND             of states: initialised, as a layer begins to be trained; slow, so that every\n"
         "                           token reaches the end of its segment (initialised)\n"
         "the machine, one rank of it\n"
         "  --threads N              threads among which the scan shares rows and heads (1)\n"
         "  --machine FILE           as --calibrate prints it; the options below come on top\n"
         "  --flops X                operations per second of the scan; of backward and summary in proportion (5e11)\n"
         "  --memory-bandwidth X     bytes per second of a copy, read and written ones; of packing and the "
         "convolution\n"
         "                           in proportion (5e10)\n"
         "  --bandwidth X            bytes per second sent (1e10)\n"
         "  --latency X              seconds that a message costs (5e-6)\n"
         "runs on this machine, under mpirun, in float\n"
         "  --calibrate              measure the machine and print it, for --machine\n"
         "  --check                  measure the machine, then the layer and the work that the other options "
         "describe,\n"
         "                           with every strategy, beside what is predicted for this many ranks\n"
         "  --check-grid             the same of a list of cases, with 2 ranks, 4, 8 ... and all; minutes\n"
         "the answer\n"
         "  --json                   an array of objects instead of tables; strategies that cannot run are left out\n"
         "  --help                   this text\n"
         "\n"
         "Bytes and messages are those that a rank sends, memory that of the operator; of the rank that has most.\n"
         "docs/parallelism.md has the formulas.\n";
}

}  // namespace plan
