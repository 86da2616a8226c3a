// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "job.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iostream>
#include <krait/comm/collectives.hpp>
#include <krait/core/memory_meter.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <thread>

#include "embedding.hpp"
#include "genome_common/sequence.hpp"
#include "reference_stack.hpp"
#include "report.hpp"
#include "run.hpp"

namespace genome {
namespace {

using Host = Kokkos::DefaultHostExecutionSpace;
using Numbers = Kokkos::View<std::int64_t*, Kokkos::HostSpace>;

/// Tells the other ranks what rank 0 says. They sleep until then: on a machine with fewer cores than ranks, a rank that
/// waits busily takes time from the one that works.
std::int64_t from_first_rank(const krait::Communicator& world, std::int64_t value) {
  const Numbers message("krait_genome::verdict", 1);
  message(0) = value;
  krait::Request request = krait::comm::broadcast(Host(), world, message, 0);
  while (!request.test()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return message(0);
}

/// What the ranks measured, put together; on every rank.
Outcome outcome_of(const krait::Communicator& world, const Run& run) {
  enum : std::size_t { nanoseconds, exchanges, bytes_sent, peak_bytes, figures };
  const Numbers mine("krait_genome::mine", figures);
  mine(nanoseconds) = static_cast<std::int64_t>(run.seconds * 1e9);
  mine(exchanges) = run.exchanges;
  mine(bytes_sent) = run.bytes_sent;
  mine(peak_bytes) = static_cast<std::int64_t>(run.peak_bytes);
  const Numbers all("krait_genome::all", figures * static_cast<std::size_t>(world.size()));
  krait::comm::all_gather(Host(), world, mine, all).wait();

  const auto largest = [&](std::size_t figure) {
    std::int64_t result = 0;
    for (std::size_t i = figure; i < all.size(); i += figures) result = std::max(result, all(i));
    return result;
  };
  Outcome result;
  result.seconds = static_cast<double>(largest(nanoseconds)) * 1e-9;
  result.exchanges = largest(exchanges);
  result.bytes_sent = largest(bytes_sent);
  result.peak_bytes = largest(peak_bytes);
  return result;
}

void print_configuration(const Options& options, const Sequence& sequence, const krait::Communicator& world,
                         const Exec& exec) {
  const krait::MambaConfig mixer = mixer_config(options);
  std::cout << "krait_genome\n"
            << "  sequence          " << sequence.source << '\n'
            << "                    " << sequence.bases.size() << " bases, " << sequence.length << " tokens\n"
            << "  layers            " << options.layers << " x (norm, Mamba-2 mixer, residual), single precision\n"
            << "  mixer             d_model " << mixer.d_model << ", " << mixer.head_count() << " heads of "
            << mixer.head_dim << ", " << mixer.groups << " groups, d_state " << mixer.d_state << ", d_conv "
            << mixer.d_conv << ", chunks of " << mixer.chunk_size << '\n'
            << "  ranks             " << world.size() << " (" << world.backend() << "), " << name_of(options.layout)
            << ", " << Exec::name() << " x " << exec.concurrency() << std::endl;
}

Report describe(const Options& options, const krait::SequenceLayout& layout) {
  Report report;
  report.length = layout.length();
  report.layers = options.layers;
  report.ranks = layout.ranks();
  report.prefix = std::min(options.prefix, layout.length());
  report.least_tokens = layout.length();
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    report.least_tokens = std::min(report.least_tokens, layout.local_length(rank));
    report.most_tokens = std::max(report.most_tokens, layout.local_length(rank));
  }
  return report;
}

/// What a rank has of the whole: of the tokens, and where they are exchanged for heads, of the heads.
double largest_share(const Report& report, const Options& options, krait::Strategy strategy) {
  const double tokens = static_cast<double>(report.most_tokens) / static_cast<double>(report.length);
  if (strategy != krait::Strategy::hidden_parallel) return tokens;
  const std::int64_t heads = mixer_config(options).head_count();
  const std::int64_t most_heads = (heads + report.ranks - 1) / report.ranks;
  return std::max(static_cast<double>(most_heads) / static_cast<double>(heads), tokens);
}

/// Repeats the run on this rank alone and compares `results`, the sequence's tokens behind the last layer by each
/// strategy, with it and with the reference.
void compare(const Exec& exec, const Options& options, const Sequence& sequence,
             const std::vector<std::vector<float>>& results, krait::MemoryMeter& meter, Progress& progress,
             Report& report) {
  const auto self = krait::Communicator::self();
  const auto layout = make_layout(options.layout, self, sequence.length);
  if (options.check) {
    const Run run = run_stack(exec, self, krait::Strategy::local, layout, options, sequence, meter, progress);
    report.one_rank_bytes = static_cast<std::int64_t>(run.peak_bytes);
    report.one_rank_measured = true;
    for (std::size_t i = 0; i < results.size(); ++i)
      report.outcomes[i].against_one_rank = difference(results[i].data(), run.stream.data(), results[i].size());
  }
  const MixerStack stack(exec, options, self, krait::Strategy::local);
  if (!options.check) report.one_rank_bytes = static_cast<std::int64_t>(stack.activation_bytes(layout));
  if (report.prefix == 0) return;
  progress.begin("reference in double precision");
  const std::vector<double> reference =
      reference_prefix(stack, Embedding(options.d_model, options.seed), sequence, report.prefix);
  for (std::size_t i = 0; i < results.size(); ++i)
    report.outcomes[i].against_reference = difference(results[i].data(), reference.data(), reference.size());
  progress.done();
}

}  // namespace

std::vector<std::string> run_job(const Exec& exec, const krait::Communicator& world, const Options& options) {
  const bool first = world.rank() == 0;
  mixer_config(options).validate();
  const Sequence sequence = make_sequence(world, options);
  if (first) print_configuration(options, sequence, world, exec);

  const std::vector<krait::Strategy> strategies =
      world.size() > 1 ? options.strategies : std::vector{krait::Strategy::local};
  const auto runs = static_cast<std::int64_t>(strategies.size()) + (options.check ? 1 : 0);
  std::ostream silence(nullptr);
  Progress progress(first ? std::cout : silence, wants_bar(options.progress),
                    options.layers * runs + (options.prefix > 0));
  krait::MemoryMeter meter;
  const auto layout = make_layout(options.layout, world, sequence.length);
  Report report = describe(options, layout);
  std::vector<std::vector<float>> results;
  for (const krait::Strategy strategy : strategies) {
    const Run run = run_stack(exec, world, strategy, layout, options, sequence, meter, progress);
    Outcome outcome = outcome_of(world, run);
    outcome.strategy = strategy;
    outcome.largest_share = largest_share(report, options, strategy);
    report.outcomes.push_back(outcome);
    results.push_back(gather_in_order(world, layout, run.stream, options.d_model));
  }

  std::vector<std::string> wrong;
  if (first) {
    // Alone: an error here must reach the other ranks too, so it becomes part of the verdict.
    try {
      compare(exec, options, sequence, results, meter, progress, report);
      progress.clear();
      print(std::cout, report);
      wrong = complaints(report);
      if (wrong.empty()) std::cout << "krait: ok, " << summary(report) << std::endl;
    } catch (const std::exception& error) {
      wrong.emplace_back(error.what());
    }
  }
  wrong.resize(static_cast<std::size_t>(from_first_rank(world, static_cast<std::int64_t>(wrong.size()))));
  return wrong;
}

}  // namespace genome
