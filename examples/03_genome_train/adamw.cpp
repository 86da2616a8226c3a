// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "adamw.hpp"

#include <cmath>

namespace genome::train {
namespace {

constexpr std::int64_t block_size = 4096;

/// sums(block) = sum of squares of a block
struct SumOfSquares {
  Slice<float> values;
  Array<double> sums;
  KOKKOS_FUNCTION void operator()(std::int64_t block) const {
    const std::int64_t count = static_cast<std::int64_t>(values.extent(0));
    const std::int64_t begin = block * block_size;
    const std::int64_t end = begin + block_size < count ? begin + block_size : count;
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) sum += static_cast<double>(values(i)) * static_cast<double>(values(i));
    sums(block) = sum;
  }
};

struct Update {
  Slice<float> value;
  Slice<float> gradient;
  Slice<float> first;
  Slice<float> second;
  float gradient_scale;
  float rate;
  float decay;
  float first_correction;   // 1 / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    constexpr auto b1 = static_cast<float>(AdamW::beta1);
    constexpr auto b2 = static_cast<float>(AdamW::beta2);
    constexpr auto e = static_cast<float>(AdamW::epsilon);
    const float g = gradient_scale * gradient(i);
    const float m = b1 * first(i) + (1 - b1) * g;
    const float v = b2 * second(i) + (1 - b2) * g * g;
    first(i) = m;
    second(i) = v;
    const float direction = m * first_correction / (Kokkos::sqrt(v * second_correction) + e);
    value(i) -= rate * (direction + decay * value(i));
  }
};

std::int64_t size_of(const Slice<float>& slice) { return static_cast<std::int64_t>(slice.size()); }

std::size_t count_of(const std::vector<Parameter<float>>& parameters) {
  std::size_t count = 0;
  for (const Parameter<float>& parameter : parameters) count += parameter.value.size();
  return count;
}

}  // namespace

double gradient_norm(const Exec& exec, const std::vector<Parameter<float>>& parameters) {
  double total = 0;
  for (const Parameter<float>& parameter : parameters) {
    const std::int64_t blocks = (size_of(parameter.gradient) + block_size - 1) / block_size;
    const Array<double> sums("krait_genome_train::sums", static_cast<std::size_t>(blocks));
    Kokkos::parallel_for("krait_genome_train::sum_of_squares", range(exec, blocks),
                         SumOfSquares{parameter.gradient, sums});
    const auto host = Kokkos::create_mirror_view(sums);
    Kokkos::deep_copy(exec, host, sums);
    exec.fence("krait_genome_train: sums are on the host");
    for (std::size_t block = 0; block < host.size(); ++block) total += host(block);
  }
  return std::sqrt(total);
}

AdamW::AdamW(const Exec& exec, const std::vector<Parameter<float>>& parameters, double decay)
    : decay_(decay),
      first_moment_(Kokkos::view_alloc(exec, "krait_genome_train::first_moment"), count_of(parameters)),
      second_moment_(Kokkos::view_alloc(exec, "krait_genome_train::second_moment"), count_of(parameters)) {}

void AdamW::step(const Exec& exec, const std::vector<Parameter<float>>& parameters, std::int64_t t, double rate,
                 double gradient_scale) {
  std::size_t begin = 0;
  for (const Parameter<float>& parameter : parameters) {
    const std::size_t count = parameter.value.size();
    const Update update{.value = parameter.value,
                        .gradient = parameter.gradient,
                        .first = Slice<float>(first_moment_.data() + begin, count),
                        .second = Slice<float>(second_moment_.data() + begin, count),
                        .gradient_scale = static_cast<float>(gradient_scale),
                        .rate = static_cast<float>(rate),
                        .decay = parameter.decays ? static_cast<float>(decay_) : 0.0F,
                        .first_correction = static_cast<float>(1 / (1 - std::pow(beta1, t))),
                        .second_correction = static_cast<float>(1 / (1 - std::pow(beta2, t)))};
    Kokkos::parallel_for("krait_genome_train::adamw", range(exec, size_of(parameter.value)), update);
    begin += count;
  }
}

}  // namespace genome::train
