// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/comm/place.hpp>
#include <krait/core/scalars.hpp>
#include <krait/mixer/mamba_config.hpp>

namespace krait {

/// How initialize() draws values. `nemo` differs in A_log = ln(1...H) and in dividing out_proj by sqrt(layers).
struct InitializationStyle {
  enum class Kind { megatron, nemo } kind = Kind::megatron;
  std::int64_t layers = 1;
};

/// Parameters of one mixer on one tensor-parallel rank: every context-parallel rank holds the same. A is
/// accumulator_t<T>; what is optional in the configuration is an empty View here. Widths are tensor-local.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct MambaParameters {
  using Memory = typename Exec::memory_space;
  template <class DataType>
  using Array = Kokkos::View<DataType, Kokkos::LayoutRight, Memory>;

  Array<T**> in_proj_weight;                ///< (projection_width, d_model), rows z | x | B | C | dt
  Array<accumulator_t<T>*> in_proj_bias;    ///< (projection_width), with `bias`
  Array<accumulator_t<T>**> conv_weight;    ///< (conv_channels, d_conv), channels x | B | C
  Array<accumulator_t<T>*> conv_bias;       ///< (conv_channels), with `conv_bias`
  Array<accumulator_t<T>*> dt_bias;         ///< (heads)
  Array<accumulator_t<T>*> A_log;           ///< (heads)
  Array<accumulator_t<T>*> D;               ///< (heads), unless D_has_hdim
  Array<accumulator_t<T>**> D_per_channel;  ///< (heads, head_dim), with D_has_hdim
  Array<accumulator_t<T>*> norm_weight;     ///< (d_inner), with rmsnorm
  Array<T**> out_proj_weight;               ///< (d_model, d_inner)
  Array<accumulator_t<T>*> out_proj_bias;   ///< (d_model), with `bias`

  /// Allocates everything, uninitialised.
  MambaParameters(const Exec& exec, const MambaConfig& config, Place tensor = {});

  /// Number of parameters on this rank.
  [[nodiscard]] std::int64_t count() const;
};

/// Draws initial values. Each value is a function of the seed and of its place in the whole layer, so it does not
/// depend on tensor ranks, context ranks or threads. Projections: uniform in +-1/sqrt(inputs), as torch.nn.Linear;
/// convolution weight and bias: uniform in +-1/sqrt(d_conv) (weight: +-conv_init where given);
/// dt = max(exp(uniform(ln dt_min, ln dt_max)), dt_init_floor), dt_bias = dt + ln(1 - exp(-dt)), so that
/// softplus(dt_bias) = dt; A_log = ln(uniform(A_init_range)); D = 1; norm weight = 1.
/// Source: the mamba_ssm and Megatron-LM mixers. Blocks until done.
template <Scalar T, class Exec>
void initialize(const Exec& exec, const MambaConfig& config, std::uint64_t seed, const InitializationStyle& style,
                Place tensor, const MambaParameters<T, Exec>& parameters);

}  // namespace krait
