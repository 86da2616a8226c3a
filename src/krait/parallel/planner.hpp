// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Which strategy suits: predicted from shapes alone, without a message, so that all ranks decide alike.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <krait/core/kokkos_shims.hpp>
#include <krait/parallel/decay.hpp>
#include <krait/parallel/machine.hpp>
#include <krait/parallel/saving.hpp>
#include <krait/parallel/sequence_operator.hpp>
#include <krait/parallel/sharding.hpp>
#include <krait/parallel/strategy.hpp>

namespace krait {

/// One call of the operator of one layer.
struct Workload {
  SequenceOperatorConfig config = {};
  Sharding sharding = Sharding::contiguous(1, 0);
  std::int64_t batch = 1;
  /// Bytes of an activation, and of a number of a state.
  std::int64_t scalar_bytes = 4;
  std::int64_t accumulator_bytes = 4;
  /// Threads of a rank: the scan shares out rows and heads among them.
  std::int64_t threads = 1;
  /// Whether ranks compute on devices, which decides on HiddenParallel's blocks of heads where the configuration does
  /// not.
  bool on_device = false;
  /// A forward that is followed by its backward, together.
  bool backward = false;
  Saving saving = Saving::lean;
  /// How far summaries read; the parameters that decide it are not known here.
  Decay decay = Decay::initialised;

  /// \throws ConfigError naming the value that makes no sense
  void validate() const;
};

/// What one strategy takes. Of numbers that differ from rank to rank the largest.
struct Prediction {
  Strategy strategy = Strategy::local;
  StateExchange exchange = StateExchange::automatic;  ///< of state passing
  /// Why it cannot run; empty when it can. The numbers are 0 then.
  std::string impossible = {};
  double seconds = 0;
  std::int64_t bytes_sent_per_rank = 0;
  std::int64_t messages = 0;  ///< that a rank sends
  /// Inputs, outputs, workspace and what is saved, as far as it grows with tokens or segments; parameters and what the
  /// kernels keep per thread are not in it.
  std::int64_t memory_bytes_per_rank = 0;

  [[nodiscard]] bool possible() const { return impossible.empty(); }
  /// "hidden_parallel", "state_passing:doubling" ...
  [[nodiscard]] std::string name() const;
};

struct Choice {
  /// Of every strategy, in a fixed order: local, hidden_parallel, state_passing with each exchange.
  std::vector<Prediction> predictions;
  std::size_t winner = 0;

  [[nodiscard]] const Prediction& best() const { return predictions[winner]; }
  /// One line: the winner, and what the other strategies would take or why they cannot run.
  [[nodiscard]] std::string explanation() const;
};

/// Predicts what the strategies take, by this model:
///
///     seconds = 4 heads head_dim d_state per token and row / scan_flops, and so of backward and summary
///             + bytes of convolution, pack, unpack / what the machine moves of them in a second
///             + messages one after the other * latency
///             + bytes sent / network_bandwidth
///
/// of the rank that has most; of what overlaps, the states that travel beside work in a forward are taken off. Volumes
/// are exact, as the communicator's counters show them; for shardings of which only the counts are known they are
/// bounds. docs/parallelism.md has the formulas; measure() finds out how good they are.
class Planner {
 public:
  /// \throws ConfigError for a machine that cannot be
  explicit Planner(const Machine& machine = {});

  [[nodiscard]] const Machine& machine() const { return machine_; }

  /// Of every strategy, in the order of Choice.
  /// \throws ConfigError for a workload that makes no sense
  [[nodiscard]] std::vector<Prediction> predict(const Workload& workload) const;
  /// The fastest that can run; of equals the first. But of state passing the exchange by doubling if that takes at most
  /// 5 % longer: a rank that is late is waited for by those behind it only, and in the fewest steps one after the
  /// other.
  [[nodiscard]] Choice choose(const Workload& workload) const;
  /// The same among those that are asked for; automatic asks for any. The first of them when none can run.
  [[nodiscard]] Choice choose(const Workload& workload, Strategy strategy, StateExchange exchange) const;

 private:
  Machine machine_;
};

/// The workload of a training step, or of a forward, of one call. Equal on all ranks.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
Workload workload_of(const SequenceOperatorConfig& config, const SequenceLayout& layout, std::int64_t batch) {
  Workload workload;
  workload.config = config;
  workload.sharding = Sharding::of(layout);
  workload.batch = batch;
  workload.scalar_bytes = static_cast<std::int64_t>(sizeof(T));
  workload.accumulator_bytes = static_cast<std::int64_t>(sizeof(accumulator_t<T>));
  workload.on_device = !impl::is_host_execution<Exec>;
  workload.backward = true;
  return workload;
}

}  // namespace krait
