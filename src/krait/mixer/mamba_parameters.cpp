// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/mixer/mamba_parameters.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include <krait/core/instantiate.hpp>
#include <krait/core/random.hpp>

namespace krait {
namespace {

/// Streams of the generator, one per parameter, so that no two share values.
enum Stream : std::uint64_t {
  stream_in_proj = 1,
  stream_in_proj_bias,
  stream_conv_weight,
  stream_conv_bias,
  stream_dt_bias,
  stream_A_log,
  stream_out_proj,
  stream_out_proj_bias
};

/// A dimension made of sections, each split over the tensor ranks by itself: local index -> index in the whole.
class SplitDimension {
 public:
  SplitDimension(std::vector<std::int64_t> sections, Place tensor) : sections_(std::move(sections)), tensor_(tensor) {}

  [[nodiscard]] std::int64_t local_size() const {
    std::int64_t size = 0;
    for (const std::int64_t section : sections_) size += section / tensor_.size;
    return size;
  }

  [[nodiscard]] std::int64_t global(std::int64_t local) const {
    std::int64_t begin = 0;
    for (const std::int64_t section : sections_) {
      const std::int64_t share = section / tensor_.size;
      if (local < share) return begin + tensor_.rank * share + local;
      local -= share;
      begin += section;
    }
    return begin;
  }

 private:
  std::vector<std::int64_t> sections_;
  Place tensor_;
};

struct Dimensions {
  SplitDimension projection;  // z | x | B | C | dt
  SplitDimension channels;    // x | B | C
  SplitDimension heads;
  SplitDimension inner;
  std::int64_t model;

  Dimensions(const MambaConfig& config, Place tensor)
      : projection({config.d_inner(), config.d_inner(), config.groups * config.d_state, config.groups * config.d_state,
                    config.head_count()},
                   tensor),
        channels({config.d_inner(), config.groups * config.d_state, config.groups * config.d_state}, tensor),
        heads({config.head_count()}, tensor),
        inner({config.d_inner()}, tensor),
        model(config.d_model) {}
};

/// Fills a View from a function of its (row, column), or of its index, on the host and copies it over.
template <class Exec, class View, class Value>
void fill(const Exec& exec, const View& view, const Value& value) {
  if (view.size() == 0) return;
  using Element = typename View::non_const_value_type;
  const auto host = Kokkos::create_mirror_view(Kokkos::view_alloc(Kokkos::WithoutInitializing), view);
  if constexpr (View::rank() == 2) {
    for (std::size_t row = 0; row < view.extent(0); ++row)
      for (std::size_t column = 0; column < view.extent(1); ++column)
        host(row, column) = Element(value(static_cast<std::int64_t>(row), static_cast<std::int64_t>(column)));
  } else {
    for (std::size_t i = 0; i < view.extent(0); ++i) host(i) = Element(value(static_cast<std::int64_t>(i)));
  }
  Kokkos::deep_copy(exec, view, host);
  exec.fence("krait::initialize: host values copied");
}

}  // namespace

template <Scalar T, class Exec>
MambaParameters<T, Exec>::MambaParameters(const Exec& exec, const MambaConfig& config, Place tensor) {
  const Dimensions local(config, tensor);
  const auto allocate = [&exec](const char* label) {
    return Kokkos::view_alloc(exec, Kokkos::WithoutInitializing, std::string("krait::parameter::") + label);
  };
  const std::int64_t width = local.projection.local_size();
  const std::int64_t channels = local.channels.local_size();
  const std::int64_t heads = local.heads.local_size();
  const std::int64_t inner = local.inner.local_size();
  in_proj_weight = Array<T**>(allocate("in_proj_weight"), width, local.model);
  out_proj_weight = Array<T**>(allocate("out_proj_weight"), local.model, inner);
  using A = accumulator_t<T>;
  conv_weight = Array<A**>(allocate("conv_weight"), channels, config.d_conv);
  if (config.conv_bias) conv_bias = Array<A*>(allocate("conv_bias"), channels);
  dt_bias = Array<A*>(allocate("dt_bias"), heads);
  A_log = Array<A*>(allocate("A_log"), heads);
  if (config.D_has_hdim) {
    D_per_channel = Array<A**>(allocate("D"), heads, config.head_dim);
  } else {
    D = Array<A*>(allocate("D"), heads);
  }
  if (config.rmsnorm) norm_weight = Array<A*>(allocate("norm_weight"), inner);
  if (config.bias) {
    in_proj_bias = Array<A*>(allocate("in_proj_bias"), width);
    out_proj_bias = Array<A*>(allocate("out_proj_bias"), local.model);
  }
}

template <Scalar T, class Exec>
std::int64_t MambaParameters<T, Exec>::count() const {
  std::size_t total = in_proj_weight.size() + in_proj_bias.size() + conv_weight.size() + conv_bias.size();
  total += dt_bias.size() + A_log.size() + D.size() + D_per_channel.size() + norm_weight.size();
  total += out_proj_weight.size() + out_proj_bias.size();
  return static_cast<std::int64_t>(total);
}

template <Scalar T, class Exec>
void initialize(const Exec& exec, const MambaConfig& config, std::uint64_t seed, const InitializationStyle& style,
                Place tensor, const MambaParameters<T, Exec>& parameters) {
  const Dimensions whole(config, tensor);
  const bool nemo = style.kind == InitializationStyle::Kind::nemo;
  const auto symmetric = [seed](Stream stream, std::int64_t index, double bound) {
    return bound * (2 * uniform(seed, stream, static_cast<std::uint64_t>(index)) - 1);
  };
  const double model_bound = 1 / std::sqrt(static_cast<double>(config.d_model));
  const double inner_bound = 1 / std::sqrt(static_cast<double>(config.d_inner()));
  const double tap_bound = 1 / std::sqrt(static_cast<double>(config.d_conv));
  const double conv_bound = config.conv_init.value_or(tap_bound);
  const double depth_scale = nemo ? 1 / std::sqrt(static_cast<double>(style.layers)) : 1;

  fill(exec, parameters.in_proj_weight, [&](std::int64_t row, std::int64_t column) {
    return symmetric(stream_in_proj, whole.projection.global(row) * config.d_model + column, model_bound);
  });
  fill(exec, parameters.in_proj_bias,
       [&](std::int64_t row) { return symmetric(stream_in_proj_bias, whole.projection.global(row), model_bound); });
  fill(exec, parameters.conv_weight, [&](std::int64_t channel, std::int64_t tap) {
    return symmetric(stream_conv_weight, whole.channels.global(channel) * config.d_conv + tap, conv_bound);
  });
  fill(exec, parameters.conv_bias,
       [&](std::int64_t channel) { return symmetric(stream_conv_bias, whole.channels.global(channel), tap_bound); });
  fill(exec, parameters.dt_bias, [&](std::int64_t head) {
    const double low = std::log(config.dt_min);
    const double high = std::log(config.dt_max);
    const double draw = uniform(seed, stream_dt_bias, static_cast<std::uint64_t>(whole.heads.global(head)));
    const double dt = std::max(std::exp(low + draw * (high - low)), config.dt_init_floor);
    return dt + std::log(-std::expm1(-dt));
  });
  fill(exec, parameters.A_log, [&](std::int64_t head) {
    const std::int64_t index = whole.heads.global(head);
    if (nemo) return std::log(static_cast<double>(index + 1));
    const auto [low, high] = config.A_init_range;
    return std::log(low + (high - low) * uniform(seed, stream_A_log, static_cast<std::uint64_t>(index)));
  });
  fill(exec, parameters.D, [](std::int64_t) { return 1.0; });
  fill(exec, parameters.D_per_channel, [](std::int64_t, std::int64_t) { return 1.0; });
  fill(exec, parameters.norm_weight, [](std::int64_t) { return 1.0; });
  fill(exec, parameters.out_proj_weight, [&](std::int64_t row, std::int64_t column) {
    return depth_scale * symmetric(stream_out_proj, row * config.d_inner() + whole.inner.global(column), inner_bound);
  });
  fill(exec, parameters.out_proj_bias,
       [&](std::int64_t row) { return symmetric(stream_out_proj_bias, row, inner_bound); });
}

#define KRAIT_INSTANTIATE(T, EXEC)                                                                                     \
  template struct MambaParameters<T, EXEC>;                                                                            \
  template void initialize<T, EXEC>(const EXEC&, const MambaConfig&, std::uint64_t, const InitializationStyle&, Place, \
                                    const MambaParameters<T, EXEC>&);
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait
