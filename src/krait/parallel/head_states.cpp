// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/head_states.hpp>

#include <algorithm>
#include <vector>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>

namespace krait::impl {
namespace {

template <class Exec, class View>
Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>> elements(const Exec& exec, const View& view) {
  return {exec, 0, static_cast<std::int64_t>(view.size())};
}

template <Scalar T, class Exec>
struct GatherChannels {
  MixedTensor<T, 3, Exec> full;
  Tensor<accumulator_t<T>***, Exec> local;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> rows, own;
  bool all;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const auto taps = static_cast<std::int64_t>(local.extent(2));
    const auto channels = static_cast<std::int64_t>(local.extent(1));
    const std::int64_t k = i % taps;
    const std::int64_t c = i / taps % channels;
    const std::int64_t n = i / taps / channels;
    local(n, c, k) = all || own(c) != 0 ? full(n, rows(c), k) : accumulator_t<T>(0);
  }
};

template <class V, class Exec>
struct PutChannels {
  Tensor<const V***, Exec> local;
  Tensor<V***, Exec> full;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> rows, own;
  bool all;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const auto taps = static_cast<std::int64_t>(local.extent(2));
    const auto channels = static_cast<std::int64_t>(local.extent(1));
    const std::int64_t k = i % taps;
    const std::int64_t c = i / taps % channels;
    const std::int64_t n = i / taps / channels;
    if (all || own(c) != 0) full(n, rows(c), k) = local(n, c, k);
  }
};

/// Which local channels no rank before has: x always, B and C where the group begins here.
std::vector<std::int64_t> own_channels(const HeadPartition& partition) {
  std::vector<std::int64_t> own(static_cast<std::size_t>(partition.conv_channels_local()), 1);
  const int rank = partition.rank();
  if (rank == 0 || partition.groups() == 0) return own;
  const std::int64_t states = partition.group_width_local();
  const std::int64_t d_state = states / partition.groups();
  std::int64_t before = 0;  // groups that ranks before have begun
  for (int r = 0; r < rank; ++r) before = std::max(before, partition.groups_end(r));
  const std::int64_t shared = std::clamp<std::int64_t>(before - partition.groups_begin(rank), 0, partition.groups());
  for (std::int64_t c = 0; c < shared * d_state; ++c)
    for (const std::int64_t begin : {partition.d_inner_local(), partition.d_inner_local() + states})
      own[static_cast<std::size_t>(begin + c)] = 0;
  return own;
}

}  // namespace

template <Scalar T, class Exec>
HeadStates<T, Exec>::HeadStates(const HeadPartition& partition, std::int64_t d_conv)
    : partition_(partition),
      taps_(d_conv - 1),
      rows_(upload_table<typename Exec::memory_space>("krait::HeadStates::rows",
                                                      partition.conv_sections().columns(partition.rank()))),
      own_(upload_table<typename Exec::memory_space>("krait::HeadStates::own", own_channels(partition))) {}

template <Scalar T, class Exec>
std::size_t HeadStates<T, Exec>::block(std::int64_t documents) const {
  WorkspaceLayout space;
  space.add<A>(documents * partition_.conv_channels_local() * taps_);
  return space.bytes();
}

template <Scalar T, class Exec>
void HeadStates<T, Exec>::reserve(const Exec& exec, std::int64_t documents) {
  memory_.reserve(exec, 3 * block(documents));
}

template <Scalar T, class Exec>
void HeadStates<T, Exec>::gather(const Exec& exec, const MixedTensor<T, 3, Exec>& full,
                                 const Tensor<A***, Exec>& local) const {
  Kokkos::parallel_for("krait::HeadStates::gather", elements(exec, local),
                       GatherChannels<T, Exec>{full, local, rows_, own_, true});
}

template <Scalar T, class Exec>
void HeadStates<T, Exec>::gather_gradients(const Exec& exec, const MixedTensor<T, 3, Exec>& full,
                                           const Tensor<A***, Exec>& local) const {
  Kokkos::parallel_for("krait::HeadStates::gather_gradients", elements(exec, local),
                       GatherChannels<T, Exec>{full, local, rows_, own_, false});
}

template <Scalar T, class Exec>
void HeadStates<T, Exec>::put(const Exec& exec, const Tensor<const T***, Exec>& local,
                              const Tensor<T***, Exec>& full) const {
  Kokkos::deep_copy(exec, full, T(0));
  Kokkos::parallel_for("krait::HeadStates::put", elements(exec, local),
                       PutChannels<T, Exec>{local, full, rows_, own_, false});
}

template <Scalar T, class Exec>
void HeadStates<T, Exec>::put_gradients(const Exec& exec, const Tensor<const A***, Exec>& local,
                                        const Tensor<A***, Exec>& full) const {
  Kokkos::deep_copy(exec, full, A(0));
  Kokkos::parallel_for("krait::HeadStates::put_gradients", elements(exec, local),
                       PutChannels<A, Exec>{local, full, rows_, own_, true});
}

#define KRAIT_INSTANTIATE(T, EXEC) template class HeadStates<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
