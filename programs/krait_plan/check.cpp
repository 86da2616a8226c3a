// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "krait_plan/check.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <krait/comm/collectives.hpp>
#include <krait/core/error.hpp>
#include <limits>
#include <ostream>
#include <thread>

#include "krait_plan/text.hpp"

namespace plan {
namespace {

using krait::Communicator;
using krait::Machine;
using krait::Measurement;
using krait::Prediction;
using krait::SequenceLayout;
using krait::SequenceOperatorConfig;
using Exec = Kokkos::DefaultExecutionSpace;

SequenceLayout layout_of(const Options& options, const Communicator& comm) {
  switch (options.layout) {
    case LayoutKind::contiguous:
      return SequenceLayout::contiguous(comm, options.length);
    case LayoutKind::zigzag:
      return SequenceLayout::zigzag(comm, options.length);
    default: {
      std::vector<std::int64_t> boundaries{0};
      for (const std::int64_t length : options.document_lengths(options.length))
        boundaries.push_back(boundaries.back() + length);
      return SequenceLayout::zigzag_docs(comm, boundaries);
    }
  }
}

krait::DocumentMap documents_of(const Options& options, const SequenceLayout& layout) {
  if (options.layout != LayoutKind::zigzag_docs) return krait::DocumentMap::whole_rows(options.batch, layout.length());
  const std::vector<std::vector<std::int64_t>> rows(static_cast<std::size_t>(options.batch),
                                                    layout.padded_boundaries());
  return krait::DocumentMap::from_cu_seqlens_per_row(rows, layout.length());
}

/// More rounds of what is short: noise does not shrink with it. Odd, and equal on all ranks.
int rounds_for(double predicted_seconds) {
  return 1 + 2 * static_cast<int>(std::clamp(std::llround(0.75 / predicted_seconds), 7LL, 50LL));
}

/// Calibrates before the measurement and behind it.
Check check_on(const Communicator& comm, const std::string& shape, const Options& options) {
  const Exec exec;
  const Machine before = calibrate(comm, options);
  const SequenceLayout layout = layout_of(options, comm);
  krait::Workload work = options.workload(comm.size(), options.length);
  work.threads = exec.concurrency();
  work.scalar_bytes = sizeof(float);
  Check result{.shape = shape,
               .options = options,
               .ranks = comm.size(),
               .predicted = krait::Planner(before).choose(work),
               .measured = {}};
  std::vector<krait::Candidate> candidates;
  for (const Prediction& prediction : result.predicted.predictions)
    if (prediction.possible()) candidates.push_back({prediction.strategy, prediction.exchange});
  result.measured = krait::measure(exec, comm, layout, documents_of(options, layout), work, candidates,
                                   rounds_for(result.predicted.best().seconds));
  result.predicted = krait::Planner(krait::better_of(before, calibrate(comm, options))).choose(work);
  return result;
}

struct Shape {
  const char* name;
  SequenceOperatorConfig config;
};

/// Few heads, so that a machine with a core or two is done in minutes.
std::vector<Shape> grid_shapes() {
  std::vector<Shape> shapes = {{"mamba2_130m", {.heads = 24, .head_dim = 64, .groups = 1, .d_state = 128}},
                               {"nemotron_h, 16 heads", {.heads = 16, .head_dim = 64, .groups = 8, .d_state = 128}},
                               {"odd", {.heads = 5, .head_dim = 33, .groups = 1, .d_state = 47}}};
  for (Shape& shape : shapes) shape.config.divisibility = krait::Divisibility::uneven;
  return shapes;
}

/// Shares of a rank, with layouts and directions in turn; the next number begins with another one.
std::vector<Options> grid_cases(const SequenceOperatorConfig& config, int ranks, int number) {
  std::vector<Options> cases;
  int turn = number;
  for (const std::int64_t share : {1024, 2048, 4096, 8192}) {
    Options options;
    options.config = config;
    options.length = share * ranks;
    options.layout = turn % 2 == 0 ? LayoutKind::contiguous : LayoutKind::zigzag;
    options.backward = turn / 2 % 2 == 0;
    cases.push_back(options);
    ++turn;
  }
  return cases;
}

/// Ranks that have no part in a check leave the cores to those that have: they look now and then whether it is over.
void await_others(const Communicator& world) {
  const Kokkos::View<char*, Kokkos::HostSpace> token("krait-plan::token", 1);
  krait::Request over = krait::comm::broadcast(Kokkos::DefaultHostExecutionSpace(), world, token, 0);
  while (!over.test()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

std::string percent(double part) { return text("%+.1f %%", 100 * part); }

}  // namespace

const Prediction& Check::prediction(const Measurement& of) const {
  return *std::find_if(predicted.predictions.begin(), predicted.predictions.end(), [&](const Prediction& one) {
    return one.strategy == of.candidate.strategy && one.exchange == of.candidate.exchange;
  });
}

const Measurement& Check::fastest() const {
  return *std::min_element(measured.begin(), measured.end(),
                           [](const Measurement& a, const Measurement& b) { return a.relative < b.relative; });
}

double Check::regret() const {
  const auto chosen = std::find_if(measured.begin(), measured.end(),
                                   [this](const Measurement& one) { return &prediction(one) == &predicted.best(); });
  return chosen->relative / fastest().relative;
}

double Check::error(const Measurement& of) const { return prediction(of).seconds / of.shortest - 1; }

bool Check::exact(const Measurement& of) const {
  return prediction(of).bytes_sent_per_rank == of.bytes_sent_per_rank && prediction(of).messages == of.messages;
}

Machine calibrate(const Communicator& world, const Options& options) {
  return krait::calibrate(Exec(), world, options.config, options.length / world.size());
}

Check check(const Communicator& world, const Options& options) {
  if (world.size() < 2) throw krait::ConfigError("--check on one rank, where there is nothing to choose; use mpirun");
  return check_on(world, options.shape_name(), options);
}

std::vector<Check> check_grid(const Communicator& world, const std::function<void(const Check&)>& done) {
  if (world.size() < 2)
    throw krait::ConfigError("--check-grid on one rank, where there is nothing to choose; use mpirun");
  std::vector<int> counts;
  for (int ranks = 2; ranks < world.size(); ranks *= 2) counts.push_back(ranks);
  counts.push_back(world.size());
  std::vector<Check> checks;
  for (const int ranks : counts) {
    const Communicator some = world.split(world.rank() < ranks ? 0 : 1, world.rank());
    if (world.rank() < ranks) {
      int number = ranks;
      for (const Shape& shape : grid_shapes()) {
        for (const Options& options : grid_cases(shape.config, ranks, number++)) {
          checks.push_back(check_on(some, shape.name, options));
          if (world.rank() == 0) done(checks.back());
        }
      }
    }
    await_others(world);
  }
  return checks;
}

std::string check_header() {
  return "* is what the planner chooses; time of a call in float, as predicted and the shortest measured, and how "
         "much\n"
         "  longer than the fastest's it is in the median of the rounds\n";
}

void print_check(std::ostream& stream, const Check& check) {
  const Options& options = check.options;
  stream << check.shape << ", " << grouped(options.length) << " tokens, " << name_of(options.layout) << ", "
         << check.ranks << " ranks, " << (options.backward ? "forward and backward" : "forward") << '\n';
  for (const Measurement& one : check.measured) {
    const Prediction& prediction = check.prediction(one);
    stream << "  " << (&prediction == &check.predicted.best() ? '*' : ' ') << ' ' << std::left << std::setw(25)
           << prediction.name() << std::right << std::setw(10) << duration(prediction.seconds) << std::setw(10)
           << duration(one.shortest) << std::setw(10) << percent(check.error(one)) << std::setw(10)
           << percent(one.relative / check.fastest().relative - 1) << (&one == &check.fastest() ? "  fastest" : "")
           << (check.exact(one) ? "" : "  BYTES DIFFER") << '\n';
  }
}

void print_summary(std::ostream& stream, const std::vector<Check>& checks) {
  std::vector<double> errors;
  std::size_t fastest = 0;
  std::size_t good = 0;
  std::size_t exact = 0;
  double most_regret = 1;
  for (const Check& check : checks) {
    fastest += check.regret() == 1 ? 1 : 0;
    good += check.regret() <= tie ? 1 : 0;
    most_regret = std::max(most_regret, check.regret());
    for (const Measurement& one : check.measured) {
      errors.push_back(std::abs(check.error(one)));
      exact += check.exact(one) ? 1 : 0;
    }
  }
  std::sort(errors.begin(), errors.end());
  const auto within = std::upper_bound(errors.begin(), errors.end(), 0.25) - errors.begin();
  stream << checks.size() << " cases: the choice was the fastest in " << fastest << ", the fastest or within "
         << text("%.0f %%", 100 * (tie - 1)) << " of it in " << good << "; at worst "
         << text("%.1f %%", 100 * (most_regret - 1)) << " slower\n"
         << errors.size() << " times: error " << text("%.1f %%", 100 * errors[errors.size() / 2]) << " in the median, "
         << text("%.1f %%", 100 * errors.back()) << " at most, within 25 % in " << within << '\n'
         << "bytes and messages as counted in " << exact << " of " << errors.size() << '\n';
}

void print_checks_json(std::ostream& stream, const std::vector<Check>& checks) {
  stream << std::setprecision(std::numeric_limits<double>::max_digits10) << '[';
  const char* separator = "\n";
  for (const Check& check : checks) {
    for (const Measurement& one : check.measured) {
      const Prediction& prediction = check.prediction(one);
      stream << separator << R"(  {"shape": ")" << check.shape << R"(", "length": )" << check.options.length
             << R"(, "layout": ")" << name_of(check.options.layout) << R"(", "ranks": )" << check.ranks
             << R"(, "backward": )" << (check.options.backward ? "true" : "false") << R"(, "strategy": ")"
             << prediction.name() << R"(", "predicted_seconds": )" << prediction.seconds << R"(, "measured_seconds": )"
             << one.shortest << R"(, "relative": )" << one.relative << R"(, "seconds_waited": )" << one.seconds_waited
             << R"(, "bytes_sent_per_rank": )" << one.bytes_sent_per_rank << R"(, "messages": )" << one.messages
             << R"(, "chosen": )" << (&prediction == &check.predicted.best() ? "true" : "false") << R"(, "fastest": )"
             << (&one == &check.fastest() ? "true" : "false") << '}';
      separator = ",\n";
    }
  }
  stream << "\n]\n";
}

}  // namespace plan
