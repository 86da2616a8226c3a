// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/krait.hpp>

/// Fills this rank's tokens with numbers that depend on the token alone, not on who holds it.
template <class Exec>
void fill(const Exec& exec, const krait::SequenceLayout& layout, const Kokkos::View<float***>& hidden) {
  const auto host = Kokkos::create_mirror_view(hidden);
  for (std::int64_t i = 0; i < layout.local_length(); ++i) {
    const auto token = static_cast<std::uint64_t>(layout.global_of_local(i));
    for (std::size_t j = 0; j < host.extent(2); ++j) {
      host(0, i, j) = static_cast<float>(krait::normal(/*seed=*/1, /*stream=*/j, /*index=*/token));
    }
  }
  Kokkos::deep_copy(exec, hidden, host);
}

struct SumOfSquares {
  Kokkos::View<const float***> values;
  KOKKOS_FUNCTION void operator()(std::int64_t i, std::int64_t j, double& sum) const {
    sum += static_cast<double>(values(0, i, j)) * values(0, i, j);
  }
};

/// The sum of squares over the tokens of all ranks.
template <class Exec>
double sum_over_ranks(const Exec& exec, const krait::Communicator& ranks, const Kokkos::View<float***>& values) {
  const Kokkos::View<double*, Kokkos::HostSpace> mine("mine", 1);
  const Kokkos::View<double*, Kokkos::HostSpace> all("all", 1);
  const Kokkos::MDRangePolicy<Exec, Kokkos::Rank<2>, Kokkos::IndexType<std::int64_t>> elements(
      exec, {0, 0}, {static_cast<std::int64_t>(values.extent(1)), static_cast<std::int64_t>(values.extent(2))});
  Kokkos::parallel_reduce("sum_of_squares", elements, SumOfSquares{values}, mine(0));
  krait::comm::all_reduce(Kokkos::DefaultHostExecutionSpace(), ranks, mine, all, krait::Reduction::sum).wait();
  return all(0);
}
