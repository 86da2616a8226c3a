// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <optional>

#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Convolution and scan of whole sequences for the heads of one rank: what `Local` is, and what `HiddenParallel` does
/// between its two exchanges. The tokens may lie in any order; nothing is moved to sort them.
template <Scalar T, class Exec>
class WholeSequence {
 public:
  WholeSequence(const Exec& exec, const SequenceOperatorConfig& config, const HeadPartition& partition,
                std::int64_t batch, std::int64_t length);

  /// Elements of `conv_out` in run().
  [[nodiscard]] std::int64_t conv_elements() const { return batch_ * length_ * partition_.conv_channels_local(); }

  /// \param input     (b, places, local x | B | C | dt); token t lies at place map(t)
  /// \param map       (L), absent when places are tokens
  /// \param conv_out  memory for conv_elements() elements; may not overlap input or out
  /// \param out       (b, places, local d_inner), token t stored at place map(t)
  void run(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
           const Tensor<const T***, Exec>& input, const Tensor<const std::int64_t*, Exec>& map, T* conv_out,
           const Tensor<T***, Exec>& out, const SequenceRuns& runs) const;

 private:
  using A = accumulator_t<T>;

  SequenceOperatorConfig config_;
  HeadPartition partition_;
  std::int64_t batch_;
  std::int64_t length_;
  std::optional<SsdScanPlan<T, Exec>> scan_;  ///< none on a rank without heads
  // Slices of the parameters for this rank's heads, refreshed at every call: the full ones may have changed.
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> conv_rows_;
  Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space> conv_weight_;
  Kokkos::View<A*, typename Exec::memory_space> conv_bias_;
  Kokkos::View<A*, typename Exec::memory_space> A_;
};

}  // namespace krait::impl
