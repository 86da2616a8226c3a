// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/conv_scan.hpp>

#include <algorithm>
#include <string>
#include <utility>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/ops/causal_conv1d.hpp>
#include <krait/ops/causal_conv1d_backward.hpp>
#include <krait/ops/ssd_scan_summary.hpp>

namespace krait::impl {
namespace {

/// Channel c of the slice is row rows(c) of the full weight and bias.
template <class A, class Exec>
struct SliceConvolution {
  Tensor<const A**, Exec> weight;
  Tensor<const A*, Exec> bias;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> rows;
  Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space> local_weight;
  Kokkos::View<A*, typename Exec::memory_space> local_bias;
  bool with_bias;
  KOKKOS_FUNCTION void operator()(std::int64_t channel) const {
    for (std::size_t tap = 0; tap < weight.extent(1); ++tap) local_weight(channel, tap) = weight(rows(channel), tap);
    if (with_bias) local_bias(channel) = bias(rows(channel));
  }
};

template <class A, class Exec>
struct NegativeExponential {
  Tensor<const A*, Exec> A_log;
  Kokkos::View<A*, typename Exec::memory_space> result;
  std::int64_t first;
  KOKKOS_FUNCTION void operator()(std::int64_t head) const { result(head) = -Kokkos::exp(A_log(first + head)); }
};

/// Compact gradients = 0.
template <class A, class Exec>
struct ClearGradients {
  Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space> conv_weight;
  Kokkos::View<A*, typename Exec::memory_space> conv_bias;
  Kokkos::View<A*, typename Exec::memory_space> dA;
  KOKKOS_FUNCTION void operator()(std::int64_t channel) const {
    for (std::size_t tap = 0; tap < conv_weight.extent(1); ++tap) conv_weight(channel, tap) = 0;
    conv_bias(channel) = 0;
    if (channel < static_cast<std::int64_t>(dA.extent(0))) dA(channel) = 0;
  }
};

/// Adds them to the full ones where these are given: no two channels have the same row. With A = -exp(A_log), the
/// gradient of A_log is A dA.
template <class A, class Exec>
struct AddGradients {
  Kokkos::View<A**, Kokkos::LayoutRight, typename Exec::memory_space> conv_weight;
  Kokkos::View<A*, typename Exec::memory_space> conv_bias;
  Kokkos::View<A*, typename Exec::memory_space> dA;
  Kokkos::View<A*, typename Exec::memory_space> A_values;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> rows;
  std::int64_t first_head;
  Tensor<A**, Exec> to_conv_weight;
  Tensor<A*, Exec> to_conv_bias;
  Tensor<A*, Exec> to_A_log;
  KOKKOS_FUNCTION void operator()(std::int64_t channel) const {
    for (std::size_t tap = 0; tap < to_conv_weight.extent(1); ++tap)
      to_conv_weight(rows(channel), tap) += conv_weight(channel, tap);
    if (to_conv_bias.extent(0) > 0) to_conv_bias(rows(channel)) += conv_bias(channel);
    if (channel < static_cast<std::int64_t>(dA.extent(0)) && to_A_log.extent(0) > 0)
      to_A_log(first_head + channel) += A_values(channel) * dA(channel);
  }
};

template <Scalar T, class Exec, class View>
struct HandOn {
  static constexpr std::size_t rank = View::rank();
  MixedTensor<T, rank, Exec> from;
  View to;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    std::int64_t at[rank] = {};
    for (std::size_t r = rank; r-- > 0;) {
      const auto extent = static_cast<std::int64_t>(to.extent(r));
      at[r] = i % extent;
      i /= extent;
    }
    if constexpr (rank == 3) {
      to(at[0], at[1], at[2]) = from.absent() ? 0 : from(at[0], at[1], at[2]);
    } else {
      to(at[0], at[1], at[2], at[3]) = from.absent() ? 0 : from(at[0], at[1], at[2], at[3]);
    }
  }
};

/// Runs without tokens: what enters them leaves them, so gradients of initial states are those of final ones.
template <Scalar T, class Exec, class View>
void hand_on(const Exec& exec, const MixedTensor<T, View::rank(), Exec>& dfinal, const View& dinitial) {
  if (is_absent(dinitial)) return;
  Kokkos::parallel_for(
      "krait::ConvScan::hand_on",
      Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, static_cast<std::int64_t>(dinitial.size())),
      HandOn<T, Exec, View>{dfinal, dinitial});
}

template <class View>
auto slice(const View& view, std::int64_t begin, std::int64_t count) {
  const auto range = Kokkos::make_pair(begin, begin + count);
  if constexpr (View::rank() == 2) {
    return is_absent(view) ? View() : View(Kokkos::subview(view, range, Kokkos::ALL));
  } else {
    return is_absent(view) ? View() : View(Kokkos::subview(view, range));
  }
}

/// Columns [begin, begin + blocks * width) of a (b, places, columns) tensor as (b, places, blocks, width).
template <class V, class Exec>
Tensor<V****, Exec> blocks(const Tensor<V***, Exec>& tensor, std::int64_t begin, std::int64_t count,
                           std::int64_t width) {
  const auto stride = [&tensor](int r) { return static_cast<std::int64_t>(tensor.stride(r)); };
  return make_tensor<V****, Exec, 4>(
      tensor.data() + begin * stride(2),
      {static_cast<std::int64_t>(tensor.extent(0)), static_cast<std::int64_t>(tensor.extent(1)), count, width},
      {stride(0), stride(1), width * stride(2), stride(2)});
}

SsdScanShape scan_shape(const SequenceOperatorConfig& config, const HeadPartition& partition, std::int64_t batch,
                        std::int64_t length) {
  return {.batch = batch,
          .length = length,
          .heads = partition.heads(),
          .head_dim = config.head_dim,
          .groups = partition.groups(),
          .d_state = config.d_state};
}

SsdScanOptions scan_options(const SequenceOperatorConfig& config, const HeadPartition& partition) {
  return {.chunk_size = config.chunk_size,
          .dt_softplus = true,
          .dt_min = config.dt_limit.first,
          .dt_max = config.dt_limit.second,
          .heads_per_group = partition.heads_per_group(),
          .first_head = partition.first_head()};
}

/// The heads of a block, as those of a rank among more ranks.
HeadPartition block_of(const HeadPartition& partition, std::int64_t k, std::int64_t blocks) {
  const Place place{static_cast<int>(partition.rank() * blocks + k), static_cast<int>(partition.ranks() * blocks)};
  return {place, partition.shape(), Divisibility::uneven};
}

}  // namespace

template <Scalar T, class Exec>
ConvScan<T, Exec>::ConvScan(const Exec& exec, const SequenceOperatorConfig& config, const HeadPartition& partition,
                            std::int64_t batch, std::int64_t length, std::int64_t blocks, std::int64_t backward_blocks)
    : config_(config),
      partition_(partition),
      batch_(batch),
      length_(length),
      backward_blocks_(backward_blocks),
      conv_rows_(upload_table<typename Exec::memory_space>("krait::ConvScan::conv_rows",
                                                           partition.conv_sections().columns(partition.rank()))),
      conv_weight_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::conv_weight"),
                   partition.conv_channels_local(), config.d_conv),
      conv_bias_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::conv_bias"),
                 partition.conv_channels_local()),
      A_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::A"), partition.heads()) {
  if (partition.heads() == 0) return;
  for (std::int64_t k = 0; k < blocks; ++k) blocks_.push_back(make_block<SsdScanPlan<T, Exec>>(exec, k, blocks));
}

template <Scalar T, class Exec>
template <class Plan>
auto ConvScan<T, Exec>::make_block(const Exec& exec, std::int64_t k, std::int64_t blocks) const -> Block<Plan> {
  const HeadPartition part = block_of(partition_, k, blocks);
  return {.first_head = part.heads_begin(part.rank()) - partition_.heads_begin(partition_.rank()),
          .heads = part.heads(),
          .first_group = part.groups_begin(part.rank()) - partition_.groups_begin(partition_.rank()),
          .groups = part.groups(),
          .scan = {exec, scan_shape(config_, part, batch_, length_), scan_options(config_, part)}};
}

template <Scalar T, class Exec>
ConvScan<T, Exec>::Backward::Backward(const Exec& exec, std::int64_t heads, std::int64_t channels, std::int64_t taps)
    : dconv_weight(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::dconv_weight"), channels,
                   taps),
      dconv_bias(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::dconv_bias"), channels),
      dA(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::ConvScan::dA"), heads) {}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::take_parameters(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters) const {
  using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;
  Kokkos::parallel_for("krait::ConvScan::slice_convolution", Range(exec, 0, partition_.conv_channels_local()),
                       SliceConvolution<A, Exec>{parameters.conv_weight, parameters.conv_bias, conv_rows_, conv_weight_,
                                                 conv_bias_, !is_absent(parameters.conv_bias)});
  Kokkos::parallel_for("krait::ConvScan::A", Range(exec, 0, partition_.heads()),
                       NegativeExponential<A, Exec>{parameters.A_log, A_, partition_.heads_begin(partition_.rank())});
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::run(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                            const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs) const {
  convolve(exec, parameters, tensors, runs);
  scan(exec, parameters, tensors, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                 const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs) const {
  convolve(exec, parameters, tensors, runs, 0, partition_.conv_channels_local());
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                 const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs, std::int64_t begin,
                                 std::int64_t count) const {
  if (blocks_.empty()) return;
  take_parameters(exec, parameters);
  convolve(exec, parameters,
           ConvChannels<T, Exec>{.first = begin,
                                 .x = columns(tensors.input, begin, count),
                                 .map = tensors.map,
                                 .out = columns(tensors.conv_out, begin, count),
                                 .states = tensors.conv_states,
                                 .final_states = tensors.final_conv_states,
                                 .workspace = tensors.conv_workspace},
           runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::convolve(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                 const ConvChannels<T, Exec>& channels, const SequenceRuns& runs) const {
  if (blocks_.empty()) return;
  const auto count = static_cast<std::int64_t>(channels.x.extent(2));
  CausalConv1dArguments<T, Exec> convolution;
  convolution.x = channels.x;
  convolution.weight = slice(Tensor<const A**, Exec>(conv_weight_), channels.first, count);
  if (!is_absent(parameters.conv_bias))
    convolution.bias = slice(Tensor<const A*, Exec>(conv_bias_), channels.first, count);
  convolution.initial_states = channels.states;
  convolution.final_states = channels.final_states;
  convolution.out = channels.out;
  convolution.activation = config_.activation;
  convolution.x_map = channels.map;
  convolution.workspace = channels.workspace;
  causal_conv1d(exec, convolution, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::scan(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                             const ConvScanTensors<T, Exec>& tensors, const SequenceRuns& runs,
                             std::int64_t block) const {
  if (blocks_.empty()) return;
  const auto& part = blocks_[static_cast<std::size_t>(block)];
  const Tensor<const T***, Exec> xBC = tensors.conv_out;
  const std::int64_t first = part.first_head * config_.head_dim;
  const std::int64_t width = part.heads * config_.head_dim;
  scan(exec, parameters,
       ScanHeads<T, Exec>{.x = columns(xBC, first, width),
                          .BC = columns(xBC, partition_.d_inner_local(), 2 * partition_.group_width_local()),
                          .dt = columns(tensors.input, partition_.conv_channels_local() + part.first_head, part.heads),
                          .map = tensors.map,
                          .out = columns(tensors.out, first, width),
                          .states = tensors.states,
                          .final_states = tensors.final_states},
       runs, block);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::scan(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                             const ScanHeads<T, Exec>& tensors, const SequenceRuns& runs, std::int64_t block) const {
  if (blocks_.empty()) return;
  const auto& [first_head, heads, first_group, groups, plan] = blocks_[static_cast<std::size_t>(block)];
  const std::int64_t B = first_group * config_.d_state;
  const std::int64_t first = partition_.heads_begin(partition_.rank()) + first_head;
  SsdScanArguments<T, Exec> scan;
  scan.x = blocks<const T, Exec>(tensors.x, 0, heads, config_.head_dim);
  scan.B = blocks<const T, Exec>(tensors.BC, B, groups, config_.d_state);
  scan.C = blocks<const T, Exec>(tensors.BC, B + partition_.group_width_local(), groups, config_.d_state);
  scan.dt = tensors.dt;
  scan.A = slice(Tensor<const A*, Exec>(A_), first_head, heads);
  scan.D = slice(parameters.D, first, heads);
  scan.D_per_channel = slice(parameters.D_per_channel, first, heads);
  scan.dt_bias = slice(parameters.dt_bias, first, heads);
  scan.initial_states = tensors.states;
  scan.final_states = tensors.final_states;
  scan.out = blocks<T, Exec>(tensors.out, 0, heads, config_.head_dim);
  scan.dt_map = tensors.map;
  scan.out_map = tensors.map;
  ssd_scan(exec, plan, scan, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::summarize(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                  const ConvScanTensors<T, Exec>& tensors, const ConvScanMaps<T, Exec>& maps,
                                  const SequenceRuns& runs, std::int64_t block) const {
  if (blocks_.empty() || runs.host().empty()) return;
  const auto& [first_head, heads, first_group, groups, plan] = blocks_[static_cast<std::size_t>(block)];
  const std::int64_t B = partition_.d_inner_local() + first_group * config_.d_state;
  const std::int64_t first = partition_.heads_begin(partition_.rank()) + first_head;
  const Tensor<const T***, Exec> xBC = tensors.conv_out;
  SsdScanSummaryArguments<T, Exec> summary;
  summary.x = blocks<const T, Exec>(xBC, first_head * config_.head_dim, heads, config_.head_dim);
  summary.B = blocks<const T, Exec>(xBC, B, groups, config_.d_state);
  summary.dt = columns(tensors.input, partition_.conv_channels_local() + first_head, heads);
  summary.A = slice(Tensor<const A*, Exec>(A_), first_head, heads);
  summary.dt_bias = slice(parameters.dt_bias, first, heads);
  summary.dt_map = tensors.map;
  summary.initial_states = tensors.states;
  summary.slots = maps.slots;
  summary.own_states = maps.states;
  summary.log_alphas = maps.log_alpha;
  ssd_scan_summarize(exec, plan, summary, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::summarize_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                           const ConvScanBackwardTensors<T, Exec>& tensors,
                                           const ConvScanMaps<T, Exec>& maps, const SequenceRuns& runs,
                                           std::int64_t block) const {
  if (blocks_.empty() || runs.host().empty()) return;
  const auto& [first_head, heads, first_group, groups, plan] = blocks_[static_cast<std::size_t>(block)];
  const std::int64_t C = partition_.d_inner_local() + partition_.group_width_local() + first_group * config_.d_state;
  const std::int64_t first = partition_.heads_begin(partition_.rank()) + first_head;
  SsdScanSummaryBackwardArguments<T, Exec> summary;
  summary.C = blocks<const T, Exec>(tensors.conv_out, C, groups, config_.d_state);
  summary.dt = columns(tensors.input, partition_.conv_channels_local() + first_head, heads);
  summary.A = slice(Tensor<const A*, Exec>(A_), first_head, heads);
  summary.dt_bias = slice(parameters.dt_bias, first, heads);
  summary.dt_map = tensors.map;
  summary.dout = blocks<const T, Exec>(tensors.dout, first_head * config_.head_dim, heads, config_.head_dim);
  summary.out_map = tensors.map;
  summary.dfinal_states = tensors.dfinal_states;
  summary.slots = maps.slots;
  summary.own_gradients = maps.states;
  summary.log_alphas = maps.log_alpha;
  ssd_scan_summarize_backward(exec, plan, summary, runs);
}

template <Scalar T, class Exec>
std::size_t ConvScan<T, Exec>::backward_scratch_bytes() const {
  if (!scratch_bytes_) scratch_bytes_ = backward_scratch_bytes(config_, partition_, batch_, length_, backward_blocks_);
  return *scratch_bytes_;
}

template <Scalar T, class Exec>
std::size_t ConvScan<T, Exec>::backward_scratch_bytes(const SequenceOperatorConfig& config,
                                                      const HeadPartition& partition, std::int64_t batch,
                                                      std::int64_t length, std::int64_t blocks) {
  if (partition.heads() == 0) return 0;
  // One after the other.
  std::size_t bytes =
      causal_conv1d_backward_workspace_bytes<T, Exec>(batch, length, partition.conv_channels_local(), config.d_conv);
  for (std::int64_t k = 0; k < blocks; ++k) {
    const HeadPartition part = block_of(partition, k, blocks);
    const SsdScanBackwardPlan<T, Exec> scan(Exec(), scan_shape(config, part, batch, length),
                                            scan_options(config, part));
    bytes = std::max(bytes, scan.workspace_bytes());
  }
  return bytes;
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::prepare_backward(const Exec& exec) {
  if (blocks_.empty() || backward_) return;
  backward_.emplace(exec, partition_.heads(), partition_.conv_channels_local(), config_.d_conv);
  // For the whole machine, so that they need what a query said.
  for (std::int64_t k = 0; k < backward_blocks_; ++k)
    backward_->blocks.push_back(make_block<SsdScanBackwardPlan<T, Exec>>(Exec(), k, backward_blocks_));
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::run_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                     const SequenceOperatorGradients<T, Exec>& gradients,
                                     const ConvScanBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const {
  scan_backward(exec, parameters, gradients, tensors, runs);
  convolve_backward(exec, parameters, gradients, tensors, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::scan_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                      const SequenceOperatorGradients<T, Exec>& gradients,
                                      const ConvScanBackwardTensors<T, Exec>& tensors, const SequenceRuns& runs) const {
  if (!backward_) return;
  const std::int64_t channels = partition_.conv_channels_local();
  const std::int64_t inner = partition_.d_inner_local();
  const std::int64_t states = 2 * partition_.group_width_local();
  const std::int64_t heads = partition_.heads();
  begin_backward(exec, parameters);
  Tensor<const T***, Exec> xBC = tensors.conv_out;
  if (is_absent(xBC) && batch_ * length_ > 0) {
    convolve(exec, parameters,
             ConvChannels<T, Exec>{.first = 0,
                                   .x = columns(tensors.input, 0, channels),
                                   .map = tensors.map,
                                   .out = tensors.conv_memory,
                                   .states = tensors.conv_states},
             runs);
    xBC = tensors.conv_memory;
  }
  scan_backward(exec, parameters, gradients,
                ScanHeadGradients<T, Exec>{.x = columns(xBC, 0, inner),
                                           .BC = columns(xBC, inner, states),
                                           .dt = columns(tensors.input, channels, heads),
                                           .map = tensors.map,
                                           .dout = tensors.dout,
                                           .dx = columns(tensors.dconv_out, 0, inner),
                                           .dBC = columns(tensors.dconv_out, inner, states),
                                           .ddt = columns(tensors.dinput, channels, heads),
                                           .scratch = tensors.scratch,
                                           .states = tensors.states,
                                           .dfinal_states = tensors.dfinal_states,
                                           .dstates = tensors.dstates},
                runs, 0);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::convolve_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                          const SequenceOperatorGradients<T, Exec>& gradients,
                                          const ConvScanBackwardTensors<T, Exec>& tensors,
                                          const SequenceRuns& runs) const {
  if (!backward_) return;
  const std::int64_t channels = partition_.conv_channels_local();
  convolve_backward(exec, parameters,
                    ConvChannelGradients<T, Exec>{.first = 0,
                                                  .x = columns(tensors.input, 0, channels),
                                                  .map = tensors.map,
                                                  .dout = tensors.dconv_out,
                                                  .dx = columns(tensors.dinput, 0, channels),
                                                  .scratch = tensors.scratch,
                                                  .states = tensors.conv_states,
                                                  .dfinal_states = tensors.dfinal_conv_states,
                                                  .dstates = tensors.dconv_states},
                    runs);
  end_backward(exec, gradients);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::begin_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters) const {
  if (!backward_) return;
  using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;
  take_parameters(exec, parameters);
  Kokkos::parallel_for("krait::ConvScan::clear_gradients", Range(exec, 0, partition_.conv_channels_local()),
                       ClearGradients<A, Exec>{backward_->dconv_weight, backward_->dconv_bias, backward_->dA});
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::scan_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                      const SequenceOperatorGradients<T, Exec>& gradients,
                                      const ScanHeadGradients<T, Exec>& tensors, const SequenceRuns& runs,
                                      std::int64_t block) const {
  if (!backward_) return;
  if (batch_ * length_ == 0)  // sums of no terms, and tensors without memory look absent
    return hand_on<T, Exec>(exec, tensors.dfinal_states, tensors.dstates);
  const auto& [first_head, heads, first_group, groups, plan] = backward_->blocks[static_cast<std::size_t>(block)];
  const std::int64_t B = first_group * config_.d_state;
  const std::int64_t C = B + partition_.group_width_local();
  const std::int64_t first = partition_.heads_begin(partition_.rank()) + first_head;
  SsdScanBackwardArguments<T, Exec> scan;
  scan.x = blocks<const T, Exec>(tensors.x, 0, heads, config_.head_dim);
  scan.B = blocks<const T, Exec>(tensors.BC, B, groups, config_.d_state);
  scan.C = blocks<const T, Exec>(tensors.BC, C, groups, config_.d_state);
  scan.dt = tensors.dt;
  scan.A = slice(Tensor<const A*, Exec>(A_), first_head, heads);
  scan.D = slice(parameters.D, first, heads);
  scan.D_per_channel = slice(parameters.D_per_channel, first, heads);
  scan.dt_bias = slice(parameters.dt_bias, first, heads);
  scan.dt_map = tensors.map;
  scan.out_map = tensors.map;
  scan.initial_states = tensors.states;
  scan.dfinal_states = tensors.dfinal_states;
  scan.dinitial_states = tensors.dstates;
  scan.dout = blocks<const T, Exec>(tensors.dout, 0, heads, config_.head_dim);
  scan.dx = blocks<T, Exec>(tensors.dx, 0, heads, config_.head_dim);
  scan.dB = blocks<T, Exec>(tensors.dBC, B, groups, config_.d_state);
  scan.dC = blocks<T, Exec>(tensors.dBC, C, groups, config_.d_state);
  if (block > 0) {
    const auto& before = backward_->blocks[static_cast<std::size_t>(block - 1)];
    scan.begun_groups = before.first_group + before.groups - first_group;
  }
  scan.ddt = tensors.ddt;
  scan.dA = slice(Tensor<A*, Exec>(backward_->dA), first_head, heads);
  scan.dD = slice(gradients.D, first, heads);
  scan.dD_per_channel = slice(gradients.D_per_channel, first, heads);
  scan.ddt_bias = slice(gradients.dt_bias, first, heads);
  scan.workspace = tensors.scratch;
  ssd_scan_backward(exec, plan, scan, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::convolve_backward(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                          const ConvChannelGradients<T, Exec>& channels,
                                          const SequenceRuns& runs) const {
  if (!backward_) return;
  if (batch_ * length_ == 0) return hand_on<T, Exec>(exec, channels.dfinal_states, channels.dstates);
  const auto count = static_cast<std::int64_t>(channels.x.extent(2));
  const bool with_bias = !is_absent(parameters.conv_bias);
  CausalConv1dBackwardArguments<T, Exec> convolution;
  convolution.x = channels.x;
  convolution.weight = slice(Tensor<const A**, Exec>(conv_weight_), channels.first, count);
  if (with_bias) convolution.bias = slice(Tensor<const A*, Exec>(conv_bias_), channels.first, count);
  convolution.activation = config_.activation;
  convolution.x_map = channels.map;
  convolution.initial_states = channels.states;
  convolution.dfinal_states = channels.dfinal_states;
  convolution.dinitial_states = channels.dstates;
  convolution.dout = channels.dout;
  convolution.dx = channels.dx;
  convolution.dweight = slice(Tensor<A**, Exec>(backward_->dconv_weight), channels.first, count);
  if (with_bias) convolution.dbias = slice(Tensor<A*, Exec>(backward_->dconv_bias), channels.first, count);
  convolution.workspace = channels.scratch;
  causal_conv1d_backward(exec, convolution, runs);
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::end_backward(const Exec& exec, const SequenceOperatorGradients<T, Exec>& gradients) const {
  if (!backward_) return;
  using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;
  Kokkos::parallel_for("krait::ConvScan::add_gradients", Range(exec, 0, partition_.conv_channels_local()),
                       AddGradients<A, Exec>{backward_->dconv_weight, backward_->dconv_bias, backward_->dA, A_,
                                             conv_rows_, partition_.heads_begin(partition_.rank()),
                                             gradients.conv_weight, gradients.conv_bias, gradients.A_log});
}

template <Scalar T, class Exec>
void ConvScan<T, Exec>::input_gradients(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                        const ConvInputGradients<T, Exec>& tensors, const SequenceRuns& runs) const {
  if (!backward_ || runs.host().empty()) return;
  CausalConv1dBackwardArguments<T, Exec> convolution;
  convolution.x = tensors.x;
  convolution.weight = conv_weight_;
  if (!is_absent(parameters.conv_bias)) convolution.bias = conv_bias_;
  convolution.activation = config_.activation;
  convolution.initial_states = tensors.states;
  convolution.dinitial_states = tensors.dstates;
  convolution.dout = tensors.dout;
  convolution.dx = tensors.dx;
  causal_conv1d_backward(exec, convolution, runs);
}

#define KRAIT_INSTANTIATE(T, EXEC) template class ConvScan<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
