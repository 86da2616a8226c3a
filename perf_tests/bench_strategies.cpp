// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Convolution and scan over ranks, every strategy on the same tokens, by krait::measure(). "one share" is a rank's part
// of the tokens by itself, on all ranks at the same time: what the operator would take if nothing had to be handed
// over.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <krait/parallel/measurement.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace {

using krait::Communicator;
using krait::Measurement;
using krait::SequenceLayout;
using krait::StateExchange;
using krait::Strategy;
using Exec = Kokkos::DefaultExecutionSpace;

struct Options {
  krait::SequenceOperatorConfig config{.heads = 80, .divisibility = krait::Divisibility::uneven};
  std::int64_t length = 65536;
  int rounds = 3;
  bool zigzag = false;
  bool slow_decay = false;
  bool backward = false;
  bool json = false;
};

constexpr const char* usage =
    "usage: mpirun -n RANKS krait_bench_strategies [options]\n"
    "  --heads H --head-dim P --groups G --d-state N   shape of the layer (80 64 1 128)\n"
    "  --length L     tokens of the whole sequence (65536)\n"
    "  --layout K     contiguous (default) or zigzag\n"
    "  --decay K      initialised (default) or slow\n"
    "  --backward     forward and backward\n"
    "  --head-blocks N   in which states travel (by default one or two)\n"
    "  --rounds N     of which the median counts (3)\n"
    "  --json         an array of objects instead of the table\n"
    "  --help         this text\n"
    "krait-plan --check compares such times with predicted ones.\n";

[[noreturn]] void refuse(const std::string& what) {
  std::cerr << "krait_bench_strategies: " << what << '\n' << usage;
  std::exit(2);  // NOLINT(concurrency-mt-unsafe): nothing runs yet
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto text = [&]() -> std::string {
      if (i + 1 >= argc) refuse(std::string(name) + " needs a value");
      return argv[++i];
    };
    const auto number = [&]() -> std::int64_t {
      const std::string given = text();
      char* end = nullptr;
      const std::int64_t value = std::strtoll(given.c_str(), &end, 10);
      if (*end != '\0' || value < 1) refuse(std::string(name) + " is " + given + ", expected a positive number");
      return value;
    };
    const auto choice = [&](const char* no, const char* yes) {
      const std::string given = text();
      if (given != no && given != yes) refuse(std::string(name) + " is " + given + ", expected " + no + " or " + yes);
      return given == yes;
    };
    if (name == "--help") {
      std::cout << usage;
      std::exit(0);  // NOLINT(concurrency-mt-unsafe): nothing runs yet
    }
    if (name == "--heads")
      options.config.heads = number();
    else if (name == "--head-dim")
      options.config.head_dim = number();
    else if (name == "--groups")
      options.config.groups = number();
    else if (name == "--d-state")
      options.config.d_state = number();
    else if (name == "--head-blocks")
      options.config.head_blocks = number();
    else if (name == "--length")
      options.length = number();
    else if (name == "--rounds")
      options.rounds = static_cast<int>(number());
    else if (name == "--layout")
      options.zigzag = choice("contiguous", "zigzag");
    else if (name == "--decay")
      options.slow_decay = choice("initialised", "slow");
    else if (name == "--backward")
      options.backward = true;
    else if (name == "--json")
      options.json = true;
    else if (!name.starts_with("--kokkos"))
      refuse("unknown option " + std::string(name));
  }
  return options;
}

void run(const Options& options) {
  const Exec exec;
  const Communicator world = Communicator::world(exec);
  const SequenceLayout layout = options.zigzag ? SequenceLayout::zigzag(world, options.length)
                                               : SequenceLayout::contiguous(world, options.length);
  krait::Workload work = krait::workload_of<float>(options.config, layout, 1);
  work.backward = options.backward;
  work.decay = options.slow_decay ? krait::Decay::slow : krait::Decay::initialised;
  const std::vector<Measurement> measured =
      krait::measure(exec, world, layout, krait::DocumentMap::whole_rows(1, options.length), work,
                     {{Strategy::local},
                      {Strategy::hidden_parallel},
                      {Strategy::state_passing, StateExchange::all_gather},
                      {Strategy::state_passing, StateExchange::doubling},
                      {Strategy::state_passing, StateExchange::chain}},
                     options.rounds);
  if (world.rank() != 0) return;
  const double share = measured[0].seconds;
  const double hidden = measured[1].seconds;
  const char* const kind = options.zigzag ? "zigzag" : "contiguous";
  const auto mebibytes = [](const Measurement& one) {
    return static_cast<double>(one.bytes_sent_per_rank) / (1 << 20);
  };
  if (!options.json)
    std::printf("%s, %s decay, %d ranks x %d threads, %lld tokens, %s, float\n%-26s %9s %8s %8s %12s %9s %9s\n",
                options.backward ? "forward and backward" : "forward", options.slow_decay ? "slow" : "initialised",
                world.size(), exec.concurrency(), static_cast<long long>(options.length), kind, "strategy", "seconds",
                "/ share", "/ hidden", "MiB sent", "messages", "waited s");
  else
    std::printf("[");
  const char* separator = "";
  for (const Measurement& one : measured) {
    if (!options.json)
      std::printf("%-26s %9.4f %8.3f %8.3f %12.2f %9lld %9.4f\n", one.name().c_str(), one.seconds, one.seconds / share,
                  one.seconds / hidden, mebibytes(one), static_cast<long long>(one.messages), one.seconds_waited);
    else
      std::printf(
          "%s\n  {\"strategy\": \"%s\", \"layout\": \"%s\", \"ranks\": %d, \"length\": %lld, \"seconds\": %.6f, "
          "\"mebibytes_sent\": %.6f, \"messages_sent\": %lld, \"seconds_waited\": %.6f}",
          separator, one.name().c_str(), kind, world.size(), static_cast<long long>(options.length), one.seconds,
          mebibytes(one), static_cast<long long>(one.messages), one.seconds_waited);
    separator = ",";
  }
  if (options.json) std::printf("\n]\n");
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const krait::Environment environment(argc, argv);
  try {
    run(options);
  } catch (const std::exception& error) {
    std::cerr << "krait_bench_strategies: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
