// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>

#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Columns [begin, begin + count) of a (b, places, columns) tensor.
template <class V, class Layout, class... Properties>
Kokkos::View<V, Layout, Properties...> columns(const Kokkos::View<V, Layout, Properties...>& tensor, std::int64_t begin,
                                               std::int64_t count) {
  return Kokkos::subview(tensor, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(begin, begin + count));
}

/// Where tokens lie; absent when places are tokens.
template <class Exec>
Tensor<const std::int64_t*, Exec> map_of(const SequenceLayout& layout) {
  if (layout.is_identity()) return {};
  return layout.template index_map<typename Exec::memory_space>();
}

/// Tensors of WholeSequence::run(). Columns are those of the rank's heads and groups. Tokens may lie in any order:
/// token t at place map(t) of (b, places, columns); nothing is moved to sort them.
template <Scalar T, class Exec>
struct WholeSequenceTensors {
  Tensor<const T***, Exec> input;         ///< (b, places, x | B | C | dt)
  Tensor<const std::int64_t*, Exec> map;  ///< (L), absent when places are tokens
  Tensor<T***, Exec> conv_out;            ///< (b, L, x | B | C), overwritten, in order of tokens
  Tensor<T***, Exec> out;                 ///< (b, places, d_inner), overwritten; may not overlap the others
};

/// The same of WholeSequence::run_backward().
template <Scalar T, class Exec>
struct WholeSequenceBackwardTensors {
  Tensor<const T***, Exec> input;         ///< as in run()
  Tensor<const std::int64_t*, Exec> map;  ///< as in run()
  Tensor<const T***, Exec> conv_out;      ///< as run() left it; absent: computed again into `conv_memory`
  Tensor<T***, Exec> conv_memory;         ///< (b, L, x | B | C)
  Tensor<const T***, Exec> dout;          ///< (b, places, d_inner)
  Tensor<T***, Exec> dconv_out;           ///< (b, L, x | B | C), overwritten
  /// (b, places, x | B | C | dt), overwritten. Its columns x | B | C may be those of conv_memory: these are dead when
  /// those are written.
  Tensor<T***, Exec> dinput;
  Tensor<std::byte*, Exec> scratch;  ///< backward_scratch_bytes()
};

/// Convolution and scan of whole sequences for the heads of one rank: what `Local` is, and what `HiddenParallel` does
/// between its two exchanges.
template <Scalar T, class Exec>
class WholeSequence {
 public:
  WholeSequence(const Exec& exec, const SequenceOperatorConfig& config, const HeadPartition& partition,
                std::int64_t batch, std::int64_t length);

  void run(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
           const WholeSequenceTensors<T, Exec>& tensors, const SequenceRuns& runs) const;

  /// Allocates what only a backward needs; nothing the second time.
  void prepare_backward(const Exec& exec);

  /// After prepare_backward(). Adds the gradients of this rank's heads to the full ones.
  void run_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                    const SequenceOperatorGradients<T, Exec>& gradients,
                    const WholeSequenceBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const;

  /// Bytes of `scratch` in run_backward(); also of an object that there is not yet.
  [[nodiscard]] std::size_t backward_scratch_bytes() const;
  static std::size_t backward_scratch_bytes(const SequenceOperatorConfig& config, const HeadPartition& partition,
                                            std::int64_t batch, std::int64_t length);

 private:
  using A = accumulator_t<T>;
  using Matrix = Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space>;
  using Vector = Kokkos::View<A*, typename Exec::memory_space>;

  /// Plan and compact gradients, to be added to the full ones.
  struct Backward {
    SsdScanBackwardPlan<T, Exec> scan;
    Matrix dconv_weight;
    Vector dconv_bias;
    Vector dA;

    Backward(const Exec& exec, const SsdScanShape& shape, const SsdScanOptions& options, std::int64_t channels,
             std::int64_t taps);
  };

  void slice_parameters(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters) const;
  void convolve(const Exec& exec, bool with_bias, const Tensor<const T***, Exec>& input,
                const Tensor<const std::int64_t*, Exec>& map, const Tensor<T***, Exec>& conv_out,
                const SequenceRuns& runs) const;

  SequenceOperatorConfig config_;
  HeadPartition partition_;
  std::int64_t batch_;
  std::int64_t length_;
  std::optional<SsdScanPlan<T, Exec>> scan_;  ///< none on a rank without heads
  std::optional<Backward> backward_;
  mutable std::optional<std::size_t> scratch_bytes_;  ///< asked for in every call, so found once
  // Slices of the parameters for this rank's heads, refreshed at every call: the full ones may have changed.
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> conv_rows_;
  Matrix conv_weight_;
  Vector conv_bias_;
  Vector A_;
};

}  // namespace krait::impl
