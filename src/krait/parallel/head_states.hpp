// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <krait/layout/head_partition.hpp>

namespace krait::impl {

/// States of all heads and channels, cut to those of one rank and put back. Of states of the scan a rank has a
/// contiguous part; those of the convolution are gathered into memory of this object.
template <Scalar T, class Exec>
class HeadStates {
 public:
  using A = accumulator_t<T>;

  HeadStates(const HeadPartition& partition, std::int64_t d_conv);

  /// Makes room for states of the convolution of so many documents; allocates nothing the second time.
  void reserve(const Exec& exec, std::int64_t documents);

  /// The rank's heads of (n, heads, head_dim, d_state).
  template <class V>
  [[nodiscard]] Tensor<V****, Exec> heads(const Tensor<V****, Exec>& states) const {
    if (is_absent(states)) return {};
    const std::int64_t first = partition_.heads_begin(partition_.rank());
    return Kokkos::subview(states, Kokkos::ALL, Kokkos::make_pair(first, first + partition_.heads()), Kokkos::ALL,
                           Kokkos::ALL);
  }

  /// \name Memory for three states of the convolution, (documents, local channels, d_conv - 1)
  /// \{
  template <class V>
  [[nodiscard]] Tensor<V***, Exec> first(std::int64_t documents) const {
    return at<V>(0, documents);
  }
  template <class V>
  [[nodiscard]] Tensor<V***, Exec> second(std::int64_t documents) const {
    return at<V>(block(documents), documents);
  }
  template <class V>
  [[nodiscard]] Tensor<V***, Exec> third(std::int64_t documents) const {
    return at<V>(2 * block(documents), documents);
  }
  /// \}

  /// The rank's channels of `full`.
  void gather(const Exec& exec, const MixedTensor<T, 3, Exec>& full, const Tensor<A***, Exec>& local) const;
  /// The same of gradients: of channels that several ranks have, only the first of them gets them, the others 0.
  void gather_gradients(const Exec& exec, const MixedTensor<T, 3, Exec>& full, const Tensor<A***, Exec>& local) const;

  /// Zeros, and the rank's channels where they belong. Of channels that several ranks have, only the first of them puts
  /// its own: for states, which are the same on all.
  void put(const Exec& exec, const Tensor<const T***, Exec>& local, const Tensor<T***, Exec>& full) const;
  /// The same of gradients, of which every rank has a part.
  void put_gradients(const Exec& exec, const Tensor<const A***, Exec>& local, const Tensor<A***, Exec>& full) const;

 private:
  [[nodiscard]] std::size_t block(std::int64_t documents) const;
  template <class V>
  [[nodiscard]] Tensor<V***, Exec> at(std::size_t offset, std::int64_t documents) const {
    return make_tensor<V***, Exec, 3>(memory_.template at<V>(offset),
                                      {documents, partition_.conv_channels_local(), taps_});
  }

  HeadPartition partition_;
  std::int64_t taps_;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> rows_;  ///< full channel of each local one
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> own_;   ///< 1 where no rank before has it
  Workspace<Exec> memory_{"krait::HeadStates"};
};

}  // namespace krait::impl
