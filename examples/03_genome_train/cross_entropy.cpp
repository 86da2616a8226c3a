// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "cross_entropy.hpp"

#include <numeric>

#include "symbols.hpp"

namespace genome::train {
namespace {

template <class T>
struct CrossEntropy {
  Symbols targets;
  T scale;
  Hidden<T> logits;
  Array<T> losses;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int32_t target = targets(i);
    T largest = logits(0, i, 0);
    for (int s = 1; s < symbols; ++s) largest = Kokkos::fmax(largest, logits(0, i, s));
    T sum = 0;
    for (int s = 0; s < symbols; ++s) sum += Kokkos::exp(logits(0, i, s) - largest);
    losses(i) = target == no_target ? T(0) : Kokkos::log(sum) - (logits(0, i, target) - largest);
    const T wanted = target == no_target ? T(0) : scale;
    for (int s = 0; s < symbols; ++s) {
      logits(0, i, s) = wanted * (Kokkos::exp(logits(0, i, s) - largest) / sum - (s == target ? T(1) : T(0)));
    }
  }
};

}  // namespace

template <class T>
void cross_entropy(const Exec& exec, const Symbols& targets, double scale, const Hidden<T>& logits,
                   const Array<T>& losses) {
  Kokkos::parallel_for("krait_genome_train::cross_entropy", range(exec, static_cast<std::int64_t>(losses.extent(0))),
                       CrossEntropy<T>{targets, static_cast<T>(scale), logits, losses});
}

template <class T>
double sum_of(const Exec& exec, const Array<T>& losses) {
  const auto host = Kokkos::create_mirror_view(losses);
  Kokkos::deep_copy(exec, host, losses);
  exec.fence("krait_genome_train: losses are on the host");
  return std::accumulate(host.data(), host.data() + host.size(), 0.0);
}

#define INSTANTIATE(T)                                                                                 \
  template void cross_entropy(const Exec&, const Symbols&, double, const Hidden<T>&, const Array<T>&); \
  template double sum_of(const Exec&, const Array<T>&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace genome::train
