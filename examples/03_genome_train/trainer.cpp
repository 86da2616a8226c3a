// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <krait/comm/reductions.hpp>
#include <krait/core/error.hpp>

namespace genome::train {
namespace {

constexpr double bits_per_nat = 1.4426950408889634;  // 1 / ln 2

std::vector<float> on_host(const Array<float>& array) {
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), array);
  return {host.data(), host.data() + host.size()};
}

std::vector<float> on_host(const std::vector<Parameter<float>>& parameters) {
  std::vector<float> result;
  for (const Parameter<float>& parameter : parameters) {
    const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), parameter.value);
    result.insert(result.end(), host.data(), host.data() + host.size());
  }
  return result;
}

using HostSlice = Kokkos::View<const float*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

void restore(const Exec& exec, const std::vector<float>& values, std::size_t begin, const Slice<float>& target) {
  Kokkos::deep_copy(exec, target, HostSlice(values.data() + begin, target.size()));
}

}  // namespace

Trainer::Trainer(const Exec& exec, const krait::Communicator& ranks, const Options& options, const Sequence& sequence)
    : exec_(exec),
      ranks_(ranks),
      schedule_(options.schedule()),
      clip_(options.clip),
      layout_(make_layout(options.layout, ranks, sequence.length)),
      tokens_(make_tokens(exec, layout_, sequence)),
      model_(exec, options.model, ranks, options.strategy),
      optimiser_(exec, model_.parameters(), options.weight_decay),
      activations_(exec, options.model, layout_) {
  model_.initialize(options.seed);
}

Step Trainer::step() {
  const auto start = std::chrono::steady_clock::now();
  Step result;
  result.number = done_ + 1;
  result.learning_rate = schedule_.rate(done_);
  result.bits_per_base = bits_per_nat * model_.loss_and_gradients(layout_, tokens_, activations_);
  result.gradient_norm = gradient_norm(exec_, model_.parameters());
  if (done_ == 0) first_loss_ = result.bits_per_base;
  if (!std::isfinite(result.bits_per_base) || !std::isfinite(result.gradient_norm)) return result;
  const double scale = std::min(1.0, clip_ / result.gradient_norm);
  optimiser_.step(exec_, model_.parameters(), result.number, result.learning_rate, scale);
  exec_.fence("krait_genome_train: a step is done");
  done_ = result.number;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  result.tokens_per_second = static_cast<double>(layout_.length()) / elapsed.count();
  return result;
}

std::int64_t Trainer::constant_bytes() const {
  constexpr std::int64_t arrays = 4;
  return arrays * model_.parameter_count() * static_cast<std::int64_t>(sizeof(float));
}

Checkpoint Trainer::checkpoint() const {
  return {.model = model_.config(),
          .steps = done_,
          .first_loss = first_loss_,
          .parameters = on_host(model_.parameters()),
          .first_moment = on_host(optimiser_.first_moment()),
          .second_moment = on_host(optimiser_.second_moment())};
}

void Trainer::restore(const Checkpoint& checkpoint) {
  const auto count = static_cast<std::size_t>(model_.parameter_count());
  for (const auto* values : {&checkpoint.parameters, &checkpoint.first_moment, &checkpoint.second_moment}) {
    if (values->size() != count) {
      throw krait::ConfigError("the checkpoint has " + std::to_string(values->size()) + " parameters, the model " +
                               std::to_string(count));
    }
  }
  std::size_t begin = 0;
  for (const Parameter<float>& parameter : model_.parameters()) {
    train::restore(exec_, checkpoint.parameters, begin, parameter.value);
    begin += parameter.value.size();
  }
  train::restore(exec_, checkpoint.first_moment, 0, optimiser_.first_moment());
  train::restore(exec_, checkpoint.second_moment, 0, optimiser_.second_moment());
  exec_.fence("krait_genome_train: the checkpoint is in place");
  done_ = checkpoint.steps;
  first_loss_ = checkpoint.first_loss;
}

bool Trainer::parameters_agree() const {
  const std::vector<float> parameters = on_host(model_.parameters());
  const Kokkos::View<std::uint64_t*, Kokkos::HostSpace> mine("krait_genome_train::hash", 1);
  const Kokkos::View<std::uint64_t*, Kokkos::HostSpace> largest("krait_genome_train::hash", 1);
  const Kokkos::View<std::uint64_t*, Kokkos::HostSpace> least("krait_genome_train::hash", 1);
  mine(0) = hash(reinterpret_cast<const std::byte*>(parameters.data()), parameters.size() * sizeof(float));
  const Kokkos::DefaultHostExecutionSpace host;
  krait::comm::all_reduce(host, ranks_, mine, largest, krait::Reduction::max).wait();
  krait::comm::all_reduce(host, ranks_, mine, least, krait::Reduction::min).wait();
  return largest(0) == least(0);
}

}  // namespace genome::train
