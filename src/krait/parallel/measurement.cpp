// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/measurement.hpp>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <krait/parallel/trial_data.hpp>

namespace krait {
namespace {

template <class Exec>
double largest(const Exec& exec, const Communicator& comm, double value) {
  const Kokkos::View<double*, Kokkos::HostSpace> view("krait::measure::largest", 1);
  view(0) = value;
  comm::all_reduce(Kokkos::DefaultHostExecutionSpace(), comm, view, view, Reduction::max).wait();
  exec.fence("krait::measure: between rounds");
  return view(0);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// What all candidates work on.
template <class Exec>
struct Problem {
  impl::TrialParameters<Exec> parameters;
  impl::TrialData<float***, Exec> input, y, dy, dinput;

  Problem(const Exec& exec, const SequenceLayout& layout, const Workload& work) : parameters(work.config, work.decay) {
    const std::int64_t tokens = layout.local_length();
    const std::int64_t width = work.config.input_width();
    const std::int64_t inner = work.config.d_inner();
    const std::int64_t gradients = work.backward ? tokens : 0;
    const std::int64_t place = layout.base(layout.place().rank) * work.batch;
    input = impl::trial_activations(exec, work.batch, tokens, width, 0.1, place * width);
    y = impl::trial_activations(exec, work.batch, tokens, inner, 0);
    dy = impl::trial_activations(exec, work.batch, gradients, inner, 1, place * inner);
    dinput = impl::trial_activations(exec, work.batch, gradients, width, 0);
  }
};

/// One candidate.
template <class Exec>
class Runner {
 public:
  Runner(const Candidate& candidate, const Communicator& comm, const SequenceLayout& layout,
         const DocumentMap& documents, const Workload& work)
      : candidate_(candidate),
        alone_(candidate.strategy == Strategy::local),
        context_(alone_ ? Communicator::self() : comm),
        layout_(alone_ ? SequenceLayout::contiguous(Place{}, layout.local_length()) : layout),
        documents_(alone_ ? DocumentMap::whole_rows(work.batch, layout.local_length()) : documents),
        backward_(work.backward),
        saving_(work.saving) {
    SequenceOperatorConfig config = work.config;
    config.state_exchange = candidate.exchange;
    operator_ = make_sequence_operator<float, Exec>(candidate.strategy, config);
  }

  void run(const Exec& exec, const Communicator& comm, const Problem<Exec>& problem, bool counts) {
    using Bytes = Kokkos::View<std::byte*, typename Exec::memory_space>;
    const std::int64_t rows = documents_.rows();
    // Touched before it is timed.
    const Bytes workspace(
        Kokkos::view_alloc(exec, "krait::measure::workspace"),
        std::max(operator_->workspace_bytes(context_, layout_, rows, false),
                 backward_ ? operator_->backward_workspace_bytes(context_, layout_, rows, saving_, false) : 0));
    Bytes saved;
    if (backward_)
      saved = Bytes(Kokkos::view_alloc(exec, "krait::measure::saved"),
                    operator_->saved_bytes(context_, layout_, rows, saving_));
    const auto parameters = problem.parameters.views();
    exec.fence("krait::measure: memory is ready");
    comm.barrier();
    const OperationCounters before = context_.counters().total();
    const Kokkos::Timer timer;
    operator_->forward(
        exec, context_, layout_, documents_, parameters,
        {.xBCdt = problem.input, .y = problem.y, .workspace = workspace, .saved = saved, .saving = saving_});
    if (backward_)
      operator_->backward(exec, context_, layout_, documents_, parameters, {},
                          {.xBCdt = problem.input,
                           .dy = problem.dy,
                           .dxBCdt = problem.dinput,
                           .saved = saved,
                           .saving = saving_,
                           .workspace = workspace});
    exec.fence("krait::measure: the operator is done");
    const OperationCounters after = context_.counters().total();
    comm.barrier();
    const double elapsed = timer.seconds();
    if (!counts) return;
    seconds_.push_back(largest(exec, comm, elapsed));
    waited_.push_back(largest(exec, comm, after.seconds_waited - before.seconds_waited));
    bytes_ = largest(exec, comm, static_cast<double>(after.bytes_sent - before.bytes_sent));
    messages_ = largest(exec, comm, static_cast<double>(after.messages_sent - before.messages_sent));
  }

  /// Of each round that counted.
  [[nodiscard]] const std::vector<double>& seconds() const { return seconds_; }

  /// \param means  of the times of all candidates, of each round
  [[nodiscard]] Measurement measurement(const std::vector<double>& means) const {
    std::vector<double> relative(seconds_);
    for (std::size_t round = 0; round < means.size(); ++round) relative[round] /= means[round];
    return {.candidate = candidate_,
            .seconds = median(seconds_),
            .shortest = *std::min_element(seconds_.begin(), seconds_.end()),
            .relative = median(relative),
            .seconds_waited = median(waited_),
            .bytes_sent_per_rank = static_cast<std::int64_t>(bytes_),
            .messages = static_cast<std::int64_t>(messages_)};
  }

 private:
  Candidate candidate_;
  bool alone_;
  Communicator context_;
  SequenceLayout layout_;
  DocumentMap documents_;
  bool backward_;
  Saving saving_;
  std::unique_ptr<SequenceOperator<float, Exec>> operator_;
  std::vector<double> seconds_, waited_;
  double bytes_ = 0, messages_ = 0;  // of the last round; all are alike
};

}  // namespace

std::string Measurement::name() const {
  if (candidate.strategy == Strategy::local) return "one share";
  return Prediction{.strategy = candidate.strategy, .exchange = candidate.exchange}.name();
}

template <class Exec>
std::vector<Measurement> measure(const Exec& exec, const Communicator& comm, const SequenceLayout& layout,
                                 const DocumentMap& documents, const Workload& work,
                                 const std::vector<Candidate>& candidates, int rounds) {
  KRAIT_REQUIRE(ConfigError, rounds >= 1, "krait::measure: rounds is ", rounds, ", expected at least 1");
  work.validate();
  layout.require_match("krait::measure", comm.place());
  documents.require_match("krait::measure", layout);
  const Kokkos::Profiling::ScopedRegion region("krait::measure");
  const Problem<Exec> problem(exec, layout, work);
  std::vector<Runner<Exec>> runners;
  runners.reserve(candidates.size());
  for (const Candidate& candidate : candidates) runners.emplace_back(candidate, comm, layout, documents, work);
  std::vector<std::size_t> order(runners.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::minstd_rand random;  // the same on all ranks
  for (int round = 0; round <= rounds; ++round) {
    for (const std::size_t i : order) runners[i].run(exec, comm, problem, round > 0);
    // In another order each time: what one leaves in the caches is not always met by the same other.
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }
  std::vector<double> means(static_cast<std::size_t>(rounds), 0);
  for (const Runner<Exec>& runner : runners) {
    for (std::size_t round = 0; round < means.size(); ++round)
      means[round] += runner.seconds()[round] / static_cast<double>(runners.size());
  }
  std::vector<Measurement> result;
  for (const Runner<Exec>& runner : runners) result.push_back(runner.measurement(means));
  return result;
}

#define KRAIT_INSTANTIATE(EXEC)                                                                                       \
  template std::vector<Measurement> measure<EXEC>(const EXEC&, const Communicator&, const SequenceLayout&,            \
                                                  const DocumentMap&, const Workload&, const std::vector<Candidate>&, \
                                                  int);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
