// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/machine.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include <krait/comm/collectives.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/runs.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/trial_data.hpp>

namespace krait {
namespace {

/// Seconds of one call: the shortest of `calls` after a first one that is not counted, as a machine's other users only
/// ever add to a time; each from a barrier to a barrier, so that ranks which take turns on a core count all turns.
/// Equal on all ranks.
template <class Exec, class Call>
double seconds_of(const Exec& exec, const Communicator& comm, const Call& call, int calls = 3) {
  call();
  exec.fence("krait::calibrate: warm");
  const Kokkos::View<double*, Kokkos::HostSpace> seconds("krait::calibrate::seconds", calls);
  for (int i = 0; i < calls; ++i) {
    comm.barrier();
    const Kokkos::Timer timer;
    call();
    exec.fence("krait::calibrate: one call is done");
    comm.barrier();
    seconds(i) = timer.seconds();
  }
  comm::all_reduce(Kokkos::DefaultHostExecutionSpace(), comm, seconds, seconds, Reduction::max).wait();
  return std::max(*std::min_element(seconds.data(), seconds.data() + calls), 1e-9);  // a clock may stand still
}

template <class V, class Exec>
using Filled = Kokkos::View<V, Kokkos::LayoutRight, typename Exec::memory_space>;

/// An allocation is zero; that is a fine input for all of these.
template <class V, class Exec, class... Extents>
Filled<V, Exec> zeros(const Exec& exec, Extents... extents) {
  return Filled<V, Exec>(Kokkos::view_alloc(exec, "krait::calibrate::data"), static_cast<std::size_t>(extents)...);
}

/// The small problem that stands for a rank's share of a layer.
struct Trial {
  SequenceOperatorConfig config;
  std::int64_t tokens;
  int calls;  ///< more of what is short: noise does not shrink with it

  /// The heads of the layer, but not more than are enough to tell, and more where they would leave threads idle. As
  /// many tokens as asked for, as far as they can be had in a time that nobody minds; without a wish as many as that.
  Trial(SequenceOperatorConfig of, std::int64_t asked, int threads) : config(std::move(of)) {
    constexpr double operations_of_call = 0x1p29;
    constexpr std::int64_t most_heads = 32;
    const std::int64_t least_heads = 4 * std::int64_t{threads};
    const std::int64_t most = std::max(most_heads, least_heads);
    const std::int64_t group = std::min(config.heads / config.groups, most);
    config.groups = std::clamp((least_heads + group - 1) / group, std::min(config.groups, most / group), most);
    config.heads = group * config.groups;
    const std::int64_t enough = std::clamp<std::int64_t>(std::llround(operations_of_call / of_token()), 1024, 8192);
    tokens = asked > 0 ? std::min(asked, enough) : enough;
    const double part = operations() / operations_of_call;
    calls = std::clamp(static_cast<int>(3 / part), 3, 20);
  }

  [[nodiscard]] double of_token() const {
    return 4.0 * static_cast<double>(config.heads * config.head_dim * config.d_state);
  }
  [[nodiscard]] double operations() const { return of_token() * static_cast<double>(tokens); }
};

/// The rates of an operator's steps.
template <class Exec>
void time_steps(const Exec& exec, const Communicator& comm, const Trial& of, Machine& machine) {
  const SequenceOperatorConfig& config = of.config;
  const std::int64_t tokens = of.tokens;

  const impl::TrialParameters<Exec> trial(config, Decay::slow);
  const auto parameters = trial.views();
  const std::int64_t channels = config.conv_channels();
  const auto activations = [&](std::int64_t columns, double scale) {
    return impl::trial_activations(exec, 1, tokens, columns, scale);
  };
  const auto input = activations(config.input_width(), 0.1);
  const auto dinput = activations(config.input_width(), 0);
  const auto conv_out = activations(channels, 0);
  const auto dconv_out = activations(channels, 0);
  const auto y = activations(config.d_inner(), 0);
  const auto dy = activations(config.d_inner(), 1);
  const auto states = zeros<float****, Exec>(exec, 1, config.heads, config.head_dim, config.d_state);
  const auto log_alpha = zeros<float**, Exec>(exec, 1, config.heads);
  impl::ConvScanTensors<float, Exec> tensors;
  tensors.input = input;
  tensors.conv_out = conv_out;
  tensors.out = y;
  impl::ConvScanBackwardTensors<float, Exec> gradients;
  gradients.input = input;
  gradients.conv_out = conv_out;
  gradients.dout = dy;
  gradients.dconv_out = dconv_out;
  gradients.dinput = dinput;
  const impl::ConvScanMaps<float, Exec> maps = {.states = states, .log_alpha = log_alpha, .slots = {}};

  const HeadPartition heads(Place{}, {config.heads, config.head_dim, config.groups, config.d_state});
  impl::ConvScan<float, Exec> steps(exec, config, heads, 1, tokens);
  steps.prepare_backward(exec);
  const Kokkos::View<std::byte*, typename Exec::memory_space> scratch("krait::calibrate::scratch",
                                                                      steps.backward_scratch_bytes());
  gradients.scratch = scratch;
  const SequenceRuns runs = SequenceRuns::whole_rows(1, tokens);
  const double operations = of.operations();
  const double pass = static_cast<double>(tokens * channels) * sizeof(float);
  const auto rate = [&](double work, const auto& call) { return work / seconds_of(exec, comm, call, of.calls); };
  machine.conv_bandwidth = rate(2 * pass, [&] { steps.convolve(exec, parameters, tensors, runs); });
  machine.scan_flops = rate(operations, [&] { steps.scan(exec, parameters, tensors, runs); });
  machine.summary_flops = rate(operations, [&] { steps.summarize(exec, parameters, tensors, maps, runs); });
  machine.scan_backward_flops = rate(operations, [&] { steps.scan_backward(exec, parameters, {}, gradients, runs); });
  machine.conv_backward_bandwidth =
      rate(3 * pass, [&] { steps.convolve_backward(exec, parameters, {}, gradients, runs); });
}

/// Of copies as large as the tensors of the trial, as it makes a difference whether they stay in caches.
template <class Exec>
double seconds_per_byte_of_copy(const Exec& exec, const Communicator& comm, const Trial& of) {
  const std::int64_t elements = std::min(std::int64_t{1} << 23, of.tokens * of.config.input_width());
  const auto from = zeros<float*, Exec>(exec, elements);
  const auto to = zeros<float*, Exec>(exec, elements);
  return seconds_of(
             exec, comm, [&] { Kokkos::deep_copy(exec, to, from); }, of.calls) /
         (2.0 * static_cast<double>(elements) * sizeof(float));
}

template <class Exec>
double seconds_per_message(const Exec& exec, const Communicator& comm) {
  constexpr int messages = 50;
  const auto from = zeros<float*, Exec>(exec, 2);
  const auto to = zeros<float*, Exec>(exec, 2);
  // Half the ring away, so that messages leave the node where there are several.
  const int distance = std::max(1, comm.size() / 2);
  return seconds_of(exec, comm,
                    [&] {
                      for (int i = 0; i < messages; ++i) comm::shift(exec, comm, from, to, distance).wait_on(exec);
                    }) /
         messages;
}

template <class Exec>
double seconds_per_byte_sent(const Exec& exec, const Communicator& comm, const Trial& of, double latency) {
  const std::int64_t ranks = comm.size();
  const std::int64_t elements = std::min(std::int64_t{1} << 21, of.tokens * of.config.input_width());
  const std::int64_t block = std::max<std::int64_t>(1 << 12, elements / ranks);
  const auto from = zeros<float*, Exec>(exec, block * ranks);
  const auto to = zeros<float*, Exec>(exec, block * ranks);
  const double seconds =
      seconds_of(exec, comm, [&] { comm::all_to_all(exec, comm, from, to).wait_on(exec); }, of.calls);
  const auto others = static_cast<double>(ranks - 1);
  // What the messages cost however short is counted apart, but a part of the time is always that of the bytes.
  return std::max(seconds - others * latency, 0.5 * seconds) / (others * static_cast<double>(block) * sizeof(float));
}

/// Tokens for heads and back, less what the messages take: the packing is kernels that read rows in parts, and more
/// than a copy where what they read comes from another rank's core.
template <class Exec>
double seconds_per_byte_packed(const Exec& exec, const Communicator& comm, const Trial& of, const Machine& machine) {
  const SequenceOperatorConfig& config = of.config;
  const SequenceLayout layout = SequenceLayout::contiguous(comm, of.tokens * comm.size());
  const HeadPartition heads(comm.place(), {config.heads, config.head_dim, config.groups, config.d_state},
                            Divisibility::uneven);
  const Redistribution<float, Exec> enter(layout, heads.projection_sections(false), 1);
  const Redistribution<float, Exec> leave(layout, heads.inner_sections(), 1);
  const auto in = zeros<float***, Exec>(exec, 1, of.tokens, enter.width());
  const auto out = zeros<float***, Exec>(exec, 1, of.tokens, leave.width());
  const auto tokens_side = zeros<float*, Exec>(exec, enter.sequence_buffer_size());
  const auto heads_side = zeros<float*, Exec>(exec, enter.heads_buffer_size());
  const double seconds = seconds_of(
      exec, comm,
      [&] {
        enter.pack(exec, in, tokens_side);  // as HiddenParallel does, whose input may lie where tokens arrive
        enter.send_to_heads(exec, comm, tokens_side, heads_side).wait_on(exec);
        leave.send_to_sequence(exec, comm, heads_side, tokens_side).wait_on(exec);
        leave.unpack(exec, tokens_side, out);
      },
      of.calls);
  const auto packed = static_cast<double>(enter.sequence_buffer_size()) * sizeof(float);
  const auto unpacked = static_cast<double>(of.tokens * leave.width()) * sizeof(float);
  const double others = comm.size() - 1;
  const double sent =
      2 * others * machine.latency + (packed + unpacked) * others / comm.size() / machine.network_bandwidth;
  const double moved = static_cast<double>(of.tokens * enter.width()) * sizeof(float) + packed + 2 * unpacked;
  return std::max(seconds - sent, 0.25 * seconds) / moved;
}

template <class Exec>
Machine calibrate_once(const Exec& exec, const Communicator& comm, const Trial& trial) {
  Machine machine;
  time_steps(exec, comm, trial, machine);
  machine.memory_bandwidth = 1 / seconds_per_byte_of_copy(exec, comm, trial);
  machine.pack_bandwidth = machine.memory_bandwidth;
  if (comm.size() > 1) {
    machine.latency = seconds_per_message(exec, comm);
    machine.network_bandwidth = 1 / seconds_per_byte_sent(exec, comm, trial, machine.latency);
    machine.pack_bandwidth = 1 / seconds_per_byte_packed(exec, comm, trial, machine);
  }
  return machine;
}

}  // namespace

const std::vector<Machine::Member>& Machine::members() {
  static const std::vector<Member> all = {{"scan_flops", &Machine::scan_flops},
                                          {"scan_backward_flops", &Machine::scan_backward_flops},
                                          {"summary_flops", &Machine::summary_flops},
                                          {"memory_bandwidth", &Machine::memory_bandwidth},
                                          {"pack_bandwidth", &Machine::pack_bandwidth},
                                          {"conv_bandwidth", &Machine::conv_bandwidth},
                                          {"conv_backward_bandwidth", &Machine::conv_backward_bandwidth},
                                          {"network_bandwidth", &Machine::network_bandwidth},
                                          {"latency", &Machine::latency}};
  return all;
}

void Machine::validate() const {
  for (const auto& [name, member] : members()) {
    const double value = this->*member;
    // Within these, no prediction overflows.
    KRAIT_REQUIRE(ConfigError, 1e-30 <= value && value <= 1e30, "krait::Machine: ", name, " is ", value,
                  ", expected 1e-30 to 1e30");
  }
}

Machine better_of(const Machine& one, const Machine& other) {
  Machine best;
  for (const auto& [name, member] : Machine::members()) best.*member = std::max(one.*member, other.*member);
  best.latency = std::min(one.latency, other.latency);
  return best;
}

template <class Exec>
Machine calibrate(const Exec& exec, const Communicator& comm, const SequenceOperatorConfig& config,
                  std::int64_t tokens) {
  const Kokkos::Profiling::ScopedRegion region("krait::calibrate");
  config.validate();
  KRAIT_REQUIRE(ConfigError, tokens >= 0, "krait::calibrate: tokens is ", tokens, ", expected at least 0");
  const Trial trial(config, tokens, exec.concurrency());
  // A rate's calls lie apart, so that what disturbs a tenth of a second does not spoil all of them.
  constexpr int passes = 3;
  Machine machine = calibrate_once(exec, comm, trial);
  for (int pass = 1; pass < passes; ++pass) machine = better_of(machine, calibrate_once(exec, comm, trial));
  return machine;
}

#define KRAIT_INSTANTIATE(EXEC) \
  template Machine calibrate<EXEC>(const EXEC&, const Communicator&, const SequenceOperatorConfig&, std::int64_t);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
