// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/whole_sequence.hpp>

#include <string>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/ops/causal_conv1d.hpp>

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

}  // namespace

template <Scalar T, class Exec>
WholeSequence<T, Exec>::WholeSequence(const Exec& exec, const SequenceOperatorConfig& config,
                                      const HeadPartition& partition, std::int64_t batch, std::int64_t length)
    : config_(config),
      partition_(partition),
      batch_(batch),
      length_(length),
      conv_rows_(upload_table<typename Exec::memory_space>("krait::WholeSequence::conv_rows",
                                                           partition.conv_sections().columns(partition.rank()))),
      conv_weight_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::WholeSequence::conv_weight"),
                   partition.conv_channels_local(), config.d_conv),
      conv_bias_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::WholeSequence::conv_bias"),
                 partition.conv_channels_local()),
      A_(Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, "krait::WholeSequence::A"), partition.heads()) {
  if (partition.heads() > 0)
    scan_.emplace(exec, scan_shape(config, partition, batch, length), scan_options(config, partition));
}

template <Scalar T, class Exec>
void WholeSequence<T, Exec>::run(const Exec& exec, const SequenceOperatorParameters<T, Exec>& parameters,
                                 const Tensor<const T***, Exec>& input, const Tensor<const std::int64_t*, Exec>& map,
                                 T* conv_out, const Tensor<T***, Exec>& out, const SequenceRuns& runs) const {
  const std::int64_t channels = partition_.conv_channels_local();
  const std::int64_t inner = partition_.d_inner_local();
  const std::int64_t states = partition_.group_width_local();
  const std::int64_t heads = partition_.heads();
  if (!scan_) return;
  const std::int64_t first = partition_.heads_begin(partition_.rank());
  const bool with_bias = !is_absent(parameters.conv_bias);

  using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;
  Kokkos::parallel_for("krait::WholeSequence::slice_convolution", Range(exec, 0, channels),
                       SliceConvolution<A, Exec>{parameters.conv_weight, parameters.conv_bias, conv_rows_, conv_weight_,
                                                 conv_bias_, with_bias});
  Kokkos::parallel_for("krait::WholeSequence::A", Range(exec, 0, heads),
                       NegativeExponential<A, Exec>{parameters.A_log, A_, first});

  const auto sequential = make_tensor<T***, Exec, 3>(conv_out, {batch_, length_, channels});
  CausalConv1dArguments<T, Exec> convolution;
  convolution.x = Kokkos::subview(input, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(std::int64_t{0}, channels));
  convolution.weight = conv_weight_;
  if (with_bias) convolution.bias = conv_bias_;
  convolution.out = sequential;
  convolution.activation = config_.activation;
  convolution.x_map = map;
  causal_conv1d(exec, convolution, runs);

  const Tensor<const T***, Exec> xBC = sequential;
  SsdScanArguments<T, Exec> scan;
  scan.x = blocks<const T, Exec>(xBC, 0, heads, config_.head_dim);
  scan.B = blocks<const T, Exec>(xBC, inner, partition_.groups(), config_.d_state);
  scan.C = blocks<const T, Exec>(xBC, inner + states, partition_.groups(), config_.d_state);
  scan.dt = Kokkos::subview(input, Kokkos::ALL, Kokkos::ALL, Kokkos::make_pair(channels, channels + heads));
  scan.A = A_;
  scan.D = slice(parameters.D, first, heads);
  scan.D_per_channel = slice(parameters.D_per_channel, first, heads);
  scan.dt_bias = slice(parameters.dt_bias, first, heads);
  scan.out = blocks<T, Exec>(out, 0, heads, config_.head_dim);
  scan.dt_map = map;
  scan.out_map = map;
  ssd_scan(exec, *scan_, scan, runs);
}

#define KRAIT_INSTANTIATE(T, EXEC) template class WholeSequence<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
