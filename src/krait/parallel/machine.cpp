// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/machine.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <krait/comm/collectives.hpp>
#include <krait/comm/point_to_point.hpp>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/runs.hpp>
#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/trial_data.hpp>

namespace krait {
namespace {

/// Seconds of one call: the shortest of a few after a first one that is not counted, as a machine's other users only
/// ever add to a time; each from a barrier to a barrier, so that ranks which take turns on a core count all turns.
/// Equal on all ranks.
template <class Exec, class Call>
double seconds_of(const Exec& exec, const Communicator& comm, const Call& call) {
  constexpr int calls = 7;
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

/// The rates of an operator's steps, on whole groups of heads, as many as keep all threads busy.
template <class Exec>
void time_steps(const Exec& exec, const Communicator& comm, SequenceOperatorConfig config, Machine& machine) {
  constexpr double operations_of_call = 0x1p29;
  const std::int64_t wanted = std::clamp<std::int64_t>(4 * exec.concurrency(), 16, 128);
  const std::int64_t group = std::min(config.heads / config.groups, wanted);
  config.groups = (wanted + group - 1) / group;
  config.heads = group * config.groups;
  const auto of_token = 4.0 * static_cast<double>(config.heads * config.head_dim * config.d_state);
  const std::int64_t tokens = std::clamp<std::int64_t>(std::llround(operations_of_call / of_token), 1024, 8192);

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
  const double operations = of_token * static_cast<double>(tokens);
  const double pass = static_cast<double>(tokens * channels) * sizeof(float);
  const auto rate = [&](double work, const auto& call) { return work / seconds_of(exec, comm, call); };
  machine.conv_bandwidth = rate(2 * pass, [&] { steps.convolve(exec, parameters, tensors, runs); });
  machine.scan_flops = rate(operations, [&] { steps.scan(exec, parameters, tensors, runs); });
  machine.summary_flops = rate(operations, [&] { steps.summarize(exec, parameters, tensors, maps, runs); });
  machine.scan_backward_flops = rate(operations, [&] { steps.scan_backward(exec, parameters, {}, gradients, runs); });
  machine.conv_backward_bandwidth =
      rate(3 * pass, [&] { steps.convolve_backward(exec, parameters, {}, gradients, runs); });
}

template <class Exec>
double seconds_per_byte_of_copy(const Exec& exec, const Communicator& comm) {
  constexpr std::int64_t elements = std::int64_t{1} << 23;
  const auto from = zeros<float*, Exec>(exec, elements);
  const auto to = zeros<float*, Exec>(exec, elements);
  return seconds_of(exec, comm, [&] { Kokkos::deep_copy(exec, to, from); }) / (2.0 * elements * sizeof(float));
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
double seconds_per_byte_sent(const Exec& exec, const Communicator& comm, double latency) {
  const std::int64_t ranks = comm.size();
  const std::int64_t block = std::max<std::int64_t>(1 << 12, (std::int64_t{1} << 21) / ranks);
  const auto from = zeros<float*, Exec>(exec, block * ranks);
  const auto to = zeros<float*, Exec>(exec, block * ranks);
  const double seconds = seconds_of(exec, comm, [&] { comm::all_to_all(exec, comm, from, to).wait_on(exec); });
  const auto others = static_cast<double>(ranks - 1);
  // What the messages cost however short is counted apart, but a part of the time is always that of the bytes.
  return std::max(seconds - others * latency, 0.5 * seconds) / (others * static_cast<double>(block) * sizeof(float));
}

}  // namespace

const std::vector<Machine::Member>& Machine::members() {
  static const std::vector<Member> all = {{"scan_flops", &Machine::scan_flops},
                                          {"scan_backward_flops", &Machine::scan_backward_flops},
                                          {"summary_flops", &Machine::summary_flops},
                                          {"memory_bandwidth", &Machine::memory_bandwidth},
                                          {"conv_bandwidth", &Machine::conv_bandwidth},
                                          {"conv_backward_bandwidth", &Machine::conv_backward_bandwidth},
                                          {"network_bandwidth", &Machine::network_bandwidth},
                                          {"latency", &Machine::latency}};
  return all;
}

void Machine::validate() const {
  for (const auto& [name, member] : members()) {
    const double value = this->*member;
    KRAIT_REQUIRE(ConfigError, std::isfinite(value) && value > 0, "krait::Machine: ", name, " is ", value,
                  ", expected a positive number");
  }
}

template <class Exec>
Machine calibrate(const Exec& exec, const Communicator& comm, const SequenceOperatorConfig& config) {
  const Kokkos::Profiling::ScopedRegion region("krait::calibrate");
  config.validate();
  Machine machine;
  time_steps(exec, comm, config, machine);
  machine.memory_bandwidth = 1 / seconds_per_byte_of_copy(exec, comm);
  if (comm.size() > 1) {
    machine.latency = seconds_per_message(exec, comm);
    machine.network_bandwidth = 1 / seconds_per_byte_sent(exec, comm, machine.latency);
  }
  return machine;
}

#define KRAIT_INSTANTIATE(EXEC) \
  template Machine calibrate<EXEC>(const EXEC&, const Communicator&, const SequenceOperatorConfig&);
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
