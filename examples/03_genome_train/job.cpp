// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "job.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/memory_meter.hpp>
#include <optional>

#include "context_entropy.hpp"
#include "genome_common/figures.hpp"
#include "genome_common/first_rank.hpp"
#include "genome_common/sequence.hpp"
#include "report.hpp"
#include "trainer.hpp"

namespace genome::train {
namespace {

constexpr int highest_order = 4;
constexpr std::int64_t progress_lines = 15;

std::int64_t largest_over_ranks(const krait::Communicator& world, std::size_t value) {
  const Kokkos::View<std::int64_t*, Kokkos::HostSpace> largest("krait_genome_train::largest", 1);
  largest(0) = static_cast<std::int64_t>(value);
  krait::comm::all_reduce(Kokkos::DefaultHostExecutionSpace(), world, largest, largest, krait::Reduction::max).wait();
  return largest(0);
}

/// Reads options.resume on rank 0, for all.
void resume(const krait::Communicator& world, const Options& options, Trainer& trainer) {
  std::vector<std::byte> bytes;
  on_first_rank(world, [&] { bytes = read_file(options.resume); });
  share(world, bytes);
  const Checkpoint checkpoint = decode(bytes, options.resume);
  require_model(checkpoint, options.model, options.resume);
  if (checkpoint.steps >= options.last_step()) {
    throw krait::ConfigError("the checkpoint '" + options.resume + "' has done " + std::to_string(checkpoint.steps) +
                             " steps, and the options ask for " + std::to_string(options.last_step()));
  }
  trainer.restore(checkpoint);
}

void print_configuration(std::ostream& out, const Options& options, const Sequence& sequence, const Trainer& trainer,
                         const krait::Communicator& world, const Exec& exec) {
  const krait::MambaConfig mixer = options.model.mixer();
  out << "krait_genome_train\n"
      << "  sequence          " << sequence.source << '\n'
      << "                    " << sequence.bases.size() << " bases, " << sequence.length << " tokens\n"
      << "  model             " << options.model.description() << ", " << mixer.head_count() << " heads of "
      << mixer.head_dim << ", " << mixer.groups << " groups; " << trainer.model().parameter_count()
      << " parameters, single precision\n"
      << "  ranks             " << world.size() << " (" << world.backend() << "), " << name_of(options.layout) << ", "
      << krait::name_of(options.strategy) << " strategy, " << Exec::name() << " x " << exec.concurrency() << '\n';
  if (!options.resume.empty()) {
    out << "  resumed           " << options.resume << ", behind step " << trainer.steps_done() << '\n';
  }
}

void print_entropies(std::ostream& out, const std::vector<double>& entropies) {
  out << "  context models    entropy of the next base, given the k before it, in bits per base\n                   ";
  for (std::size_t order = 0; order < entropies.size(); ++order) {
    out << (order == 0 ? " " : ", ") << "order " << order << text(entropies[order], ": %.4f");
  }
  out << std::endl;
}

/// The largest part of the sequence that a rank has, or of the heads where tokens are exchanged for them.
double largest_share(const Options& options, const krait::SequenceLayout& layout) {
  std::int64_t tokens = 0;
  for (int rank = 0; rank < layout.ranks(); ++rank) tokens = std::max(tokens, layout.local_length(rank));
  const double of_tokens = static_cast<double>(tokens) / static_cast<double>(layout.length());
  if (options.strategy == krait::Strategy::state_passing) return of_tokens;
  const std::int64_t heads = options.model.mixer().head_count();
  const std::int64_t most_heads = (heads + layout.ranks() - 1) / layout.ranks();
  return std::max(static_cast<double>(most_heads) / static_cast<double>(heads), of_tokens);
}

std::int64_t one_rank_bytes(const Exec& exec, const Options& options, std::int64_t length) {
  const auto self = krait::Communicator::self();
  const Model<float> model(exec, options.model, self);
  return static_cast<std::int64_t>(model.activation_bytes(make_layout(options.layout, self, length)));
}

std::string outcome(const Step& step, const std::vector<double>& entropies, std::int64_t peak) {
  return "step " + std::to_string(step.number) + ", loss " + text(step.bits_per_base, "%.4f") + " bits per base" +
         (entropies.empty() ? "" : text(entropies.back(), " (order 4: %.4f)")) +
         text(step.tokens_per_second, ", %.0f tokens/s") + ", peak " + mebibytes(peak) + " per rank";
}

}  // namespace

std::vector<std::string> run_job(const Exec& exec, const krait::Communicator& world, const Options& options) {
  const bool first = world.rank() == 0;
  std::ostream silence(nullptr);
  std::ostream& out = first && !options.quiet ? std::cout : silence;

  const Sequence sequence = make_sequence(world, options);
  krait::MemoryMeter meter;
  Trainer trainer(exec, world, options, sequence);
  if (!options.resume.empty()) resume(world, options, trainer);
  std::optional<LossLog> log;
  on_first_rank(world, [&] {
    if (!options.save.empty()) require_writable(options.save);
    log.emplace(options.csv, trainer.steps_done());
  });

  Report report;
  report.length = sequence.length;
  report.ranks = world.size();
  report.context_entropies = context_entropies(sequence, highest_order);
  report.largest_share = largest_share(options, trainer.layout());
  print_configuration(out, options, sequence, trainer, world, exec);
  print_entropies(out, report.context_entropies);

  const std::int64_t last_step = options.last_step();
  report.steps = last_step - trainer.steps_done();
  Progress progress(out, wants_bar(options.progress) && !options.quiet, report.steps,
                    std::max<std::int64_t>(1, report.steps / progress_lines));
  const auto start = std::chrono::steady_clock::now();
  bool finite = true;
  while (finite && trainer.steps_done() < last_step) {
    progress.begin("step " + std::to_string(trainer.steps_done() + 1));
    report.last = trainer.step();
    finite = trainer.steps_done() == report.last.number;
    report.peak_bytes = largest_over_ranks(world, meter.peak_bytes()) - trainer.constant_bytes();
    const bool save_now = options.save_every > 0 && report.last.number % options.save_every == 0;
    on_first_rank(world, [&] {
      log->add(report.last);
      if (finite && !options.save.empty() && (save_now || report.last.number == last_step)) {
        write_file(options.save, encode(trainer.checkpoint()));
      }
    });
    progress.done(outcome(report.last, report.context_entropies, report.peak_bytes));
  }
  progress.clear();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  report.seconds = elapsed.count();
  report.first_loss = trainer.first_loss();
  report.parameters_agree = trainer.parameters_agree();
  report.parameter_bytes = trainer.model().parameter_count() * static_cast<std::int64_t>(sizeof(float));
  report.one_rank_bytes = one_rank_bytes(exec, options, sequence.length);

  print(out, report);
  const std::vector<std::string> wrong = complaints(report);
  if (first && wrong.empty()) std::cout << "krait: ok, " << summary(report) << std::endl;
  return wrong;
}

}  // namespace genome::train
