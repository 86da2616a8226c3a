// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/ops/ssd_scan.hpp>
#include <krait/ops/ssd_scan_backward.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// Where tokens lie; absent when places are tokens.
template <class Exec>
Tensor<const std::int64_t*, Exec> map_of(const SequenceLayout& layout) {
  if (layout.is_identity()) return {};
  return layout.template index_map<typename Exec::memory_space>();
}

/// Tensors of ConvScan::run() and its steps. Columns are those of the rank's heads and groups. Tokens may lie in any
/// order: token t at place map(t) of (b, places, columns); nothing is moved to sort them. n = runs.states().
template <Scalar T, class Exec>
struct ConvScanTensors {
  Tensor<const T***, Exec> input;         ///< (b, places, x | B | C | dt)
  Tensor<const std::int64_t*, Exec> map;  ///< (L), absent when places are tokens
  Tensor<T***, Exec> conv_out;  ///< (b, L, x | B | C), overwritten, in order of tokens; without a map perhaps in input
  Tensor<T***, Exec> out;       ///< (b, places, d_inner), overwritten; may not overlap the others
  /// \name States at the ends of runs, all optional
  /// \{
  MixedTensor<T, 3, Exec> conv_states = {};   ///< (n, channels, d_conv - 1) inputs before each run; zero if absent
  MixedTensor<T, 4, Exec> states = {};        ///< (n, heads, head_dim, d_state) that enter; zero if absent
  Tensor<T***, Exec> final_conv_states = {};  ///< like conv_states, behind each run; overwritten
  Tensor<accumulator_t<T>****, Exec> final_states = {};  ///< like states, that leave; overwritten
  /// \}
  Tensor<std::byte*, Exec> conv_workspace = {};  ///< as causal_conv1d() wants it where conv_out lies in input
};

/// Some of them by themselves, where the others are elsewhere.
/// \{

/// Neighbouring channels of a convolution: the first of them, as a number among the rank's channels x | B | C.
template <Scalar T, class Exec>
struct ConvChannels {
  std::int64_t first;
  Tensor<const T***, Exec> x;             ///< (b, places, channels)
  Tensor<const std::int64_t*, Exec> map;  ///< as in ConvScanTensors
  Tensor<T***, Exec> out;                 ///< (b, L, channels), overwritten, in order of tokens
  MixedTensor<T, 3, Exec> states = {};    ///< (n, channels, d_conv - 1), as in ConvScanTensors, and so below
  Tensor<T***, Exec> final_states = {};
  Tensor<std::byte*, Exec> workspace = {};
};

/// Heads of a scan, those of a block.
template <Scalar T, class Exec>
struct ScanHeads {
  Tensor<const T***, Exec> x;   ///< (b, L, heads of head_dim)
  Tensor<const T***, Exec> BC;  ///< (b, L, B | C), of all groups of the rank
  Tensor<const T***, Exec> dt;  ///< (b, places, heads)
  Tensor<const std::int64_t*, Exec> map;
  Tensor<T***, Exec> out;               ///< (b, places, heads of head_dim)
  MixedTensor<T, 4, Exec> states = {};  ///< (n, heads, head_dim, d_state)
  Tensor<accumulator_t<T>****, Exec> final_states = {};
};
/// \}

/// The same of ConvScan::run_backward() and its steps.
template <Scalar T, class Exec>
struct ConvScanBackwardTensors {
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
  /// \name States at the ends of runs, and their gradients, all optional
  /// \{
  MixedTensor<T, 3, Exec> conv_states = {};         ///< as in run()
  MixedTensor<T, 4, Exec> states = {};              ///< as in run()
  MixedTensor<T, 3, Exec> dfinal_conv_states = {};  ///< gradients of the final states; zero if absent
  MixedTensor<T, 4, Exec> dfinal_states = {};
  Tensor<accumulator_t<T>***, Exec> dconv_states = {};  ///< gradients of the initial states, overwritten
  Tensor<accumulator_t<T>****, Exec> dstates = {};
  /// \}
};

/// Some of them by themselves.
/// \{

/// Neighbouring channels of a convolution: the first of them, as a number among the rank's channels x | B | C.
template <Scalar T, class Exec>
struct ConvChannelGradients {
  std::int64_t first;
  Tensor<const T***, Exec> x;             ///< (b, places, channels)
  Tensor<const std::int64_t*, Exec> map;  ///< as in ConvScanTensors
  Tensor<const T***, Exec> dout;          ///< (b, L, channels), in order of tokens
  Tensor<T***, Exec> dx;                  ///< (b, places, channels), overwritten
  Tensor<std::byte*, Exec> scratch;       ///< backward_scratch_bytes()
  MixedTensor<T, 3, Exec> states = {};    ///< (n, channels, d_conv - 1), and so below
  MixedTensor<T, 3, Exec> dfinal_states = {};
  Tensor<accumulator_t<T>***, Exec> dstates = {};
};

/// Heads of a scan, those of a block.
template <Scalar T, class Exec>
struct ScanHeadGradients {
  Tensor<const T***, Exec> x;   ///< (b, L, heads of head_dim)
  Tensor<const T***, Exec> BC;  ///< (b, L, B | C), of all groups of the rank
  Tensor<const T***, Exec> dt;  ///< (b, places, heads)
  Tensor<const std::int64_t*, Exec> map;
  Tensor<const T***, Exec> dout;  ///< (b, places, heads of head_dim)
  Tensor<T***, Exec> dx;          ///< (b, L, heads of head_dim), overwritten
  /// (b, L, B | C), of all groups of the rank: overwritten, but what blocks before this one have left of a group that
  /// they share with it is added to
  Tensor<T***, Exec> dBC;
  Tensor<T***, Exec> ddt;               ///< (b, places, heads), overwritten
  Tensor<std::byte*, Exec> scratch;     ///< backward_scratch_bytes()
  MixedTensor<T, 4, Exec> states = {};  ///< (n, heads, head_dim, d_state), and so below
  MixedTensor<T, 4, Exec> dfinal_states = {};
  Tensor<accumulator_t<T>****, Exec> dstates = {};
};
/// \}

/// Maps of segments, as ssd_scan_summarize() writes them; m of them. Run i of those summarized has number slots(i).
template <Scalar T, class Exec>
struct ConvScanMaps {
  Tensor<accumulator_t<T>****, Exec> states;   ///< (m, heads, head_dim, d_state)
  Tensor<accumulator_t<T>**, Exec> log_alpha;  ///< (m, heads)
  Tensor<const std::int64_t*, Exec> slots;     ///< (runs)
};

/// Tensors of ConvScan::input_gradients(): r rows of l tokens with all local channels; n = runs.states().
template <Scalar T, class Exec>
struct ConvInputGradients {
  Tensor<const T***, Exec> x;                 ///< (r, l, channels)
  MixedTensor<T, 3, Exec> states;             ///< (n, channels, d_conv - 1)
  Tensor<const T***, Exec> dout;              ///< (r, l, channels)
  Tensor<T***, Exec> dx;                      ///< (r, l, channels), overwritten
  Tensor<accumulator_t<T>***, Exec> dstates;  ///< (n, channels, d_conv - 1), overwritten
};

/// Convolution and scan of one rank's heads over the rows it has: what `Local` is, what `HiddenParallel` does between
/// its two exchanges, and, in steps, what `StatePassing` does around its own.
template <Scalar T, class Exec>
class ConvScan {
 public:
  /// \param blocks  of the rank's heads, which may then be scanned and summarized one by one; block k of n is the share
  ///                that rank n r + k of n P ranks would have
  /// \param backward_blocks  the same of a backward
  ConvScan(const Exec& exec, const SequenceOperatorConfig& config, const HeadPartition& partition, std::int64_t batch,
           std::int64_t length, std::int64_t blocks = 1, std::int64_t backward_blocks = 1);

  void run(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
           const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs) const;

  /// \name The steps of run()
  /// \{
  void convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs) const;
  /// Channels [begin, begin + count) of it alone; states are those of these channels.
  void convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs, std::int64_t begin,
                std::int64_t count) const;
  /// After convolve() or take_parameters(). States are those of the block's heads, here and below; input
  /// and output are those of the rank.
  void scan(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
            const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs, std::int64_t block = 0) const;
  /// The same of channels and heads by themselves. After take_parameters().
  void convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                const ConvChannels<T, Exec>& channels, const SequenceRuns& runs) const;
  void scan(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters, const ScanHeads<T, Exec>& heads,
            const SequenceRuns& runs, std::int64_t block) const;
  /// \}

  /// The map by which each of `runs` acts on what enters it; what its own state adds is part of E. After convolve().
  void summarize(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                 const ConvScanTensors<T, Exec>& tensors, const ConvScanMaps<T, Exec>& maps, const SequenceRuns& runs,
                 std::int64_t block = 0) const;
  /// The same of gradients that come from behind; what the gradient of its own final state adds is part of E.
  void summarize_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                          const ConvScanBackwardTensors<T, Exec>& tensors, const ConvScanMaps<T, Exec>& maps,
                          const SequenceRuns& runs, std::int64_t block = 0) const;

  /// Allocates what only a backward needs; nothing the second time.
  void prepare_backward(const Exec& exec);

  /// After prepare_backward(). Adds the gradients of this rank's heads to the full ones.
  void run_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                    const SequenceOperatorGradients<T, Exec>& gradients,
                    const ConvScanBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const;

  /// \name The steps of run_backward(), of an object whose backward has one block
  /// \{
  void scan_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                     const SequenceOperatorGradients<T, Exec>& gradients,
                     const ConvScanBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const;
  /// After scan_backward().
  void convolve_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                         const SequenceOperatorGradients<T, Exec>& gradients,
                         const ConvScanBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const;
  /// \}

  /// \name The same by blocks: scans in ascending order, a convolution when the gradients of its outputs are complete
  /// \{
  /// Before all. Keeps the parameters as take_parameters() does.
  void begin_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters) const;
  void scan_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                     const SequenceOperatorGradients<T, Exec>& gradients, const ScanHeadGradients<T, Exec>& heads,
                     const SequenceRuns& runs, std::int64_t block) const;
  void convolve_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                         const ConvChannelGradients<T, Exec>& channels, const SequenceRuns& runs) const;
  /// Behind all. Adds the gradients of the convolution's parameters and of A_log to the full ones.
  void end_backward(const Exec& exec, const SequenceOperatorGradients<T, Exec>& gradients) const;
  /// \}

  /// Gradients of the convolution's inputs alone, in tensors of their own. After scan_backward(), which prepares the
  /// parameters.
  void input_gradients(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                       const ConvInputGradients<T, Exec>& tensors, const SequenceRuns& runs) const;

  /// Keeps the rank's part of the parameters as they are now. convolve() and scan_backward() do it themselves.
  void take_parameters(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters) const;

  /// Bytes of `scratch` in run_backward(); also of an object that there is not yet.
  [[nodiscard]] std::size_t backward_scratch_bytes() const;
  static std::size_t backward_scratch_bytes(const SequenceOperatorConfig& config, const HeadPartition& partition,
                                            std::int64_t batch, std::int64_t length, std::int64_t blocks = 1);

 private:
  using A = accumulator_t<T>;
  using Matrix = Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space>;
  using Vector = Kokkos::View<A*, typename Exec::memory_space>;

  /// Heads of the rank that are scanned together: number among the rank's heads, and first group among its groups.
  template <class Plan>
  struct Block {
    std::int64_t first_head;
    std::int64_t heads;
    std::int64_t first_group;
    std::int64_t groups;
    Plan scan;
  };

  /// Plans, and compact gradients, to be added to the full ones.
  struct Backward {
    std::vector<Block<SsdScanBackwardPlan<T, Exec>>> blocks;
    Matrix dconv_weight;
    Vector dconv_bias;
    Vector dA;

    Backward(const Exec& exec, std::int64_t heads, std::int64_t channels, std::int64_t taps);
  };

  template <class Plan>
  [[nodiscard]] Block<Plan> make_block(const Exec& exec, std::int64_t k, std::int64_t blocks) const;

  SequenceOperatorConfig config_;
  HeadPartition partition_;
  std::int64_t batch_;
  std::int64_t length_;
  std::int64_t backward_blocks_;
  std::vector<Block<SsdScanPlan<T, Exec>>> blocks_;  ///< none on a rank without heads
  std::optional<Backward> backward_;
  mutable std::optional<std::size_t> scratch_bytes_;  ///< asked for in every call, so found once
  // Slices of the parameters for this rank's heads, refreshed at every call: the full ones may have changed.
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> conv_rows_;
  Matrix conv_weight_;
  Vector conv_bias_;
  Vector A_;
};

}  // namespace krait::impl
