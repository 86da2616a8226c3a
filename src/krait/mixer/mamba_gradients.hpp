// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>

#include <krait/comm/communicator.hpp>
#include <krait/comm/place.hpp>
#include <krait/core/scalars.hpp>
#include <krait/mixer/mamba_config.hpp>

namespace krait {

/// Gradients of MambaParameters, with the same names and extents, all in accumulator_t<T>: views into one contiguous
/// array, in the order of the members. What is optional in the configuration is an empty View here. A handle: copies
/// share the array, and it lives as long as any of them.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class MambaGradients {
 public:
  using A = accumulator_t<T>;
  using Memory = typename Exec::memory_space;
  template <class DataType>
  using Array = Kokkos::View<DataType, Kokkos::LayoutRight, Memory, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

  /// Allocates everything and sets it to zero.
  /// \throws ConfigError when a mixer can never be built from this configuration, with place.size tensor ranks
  MambaGradients(const Exec& exec, const MambaConfig& config, Place tensor = {});

  /// All of them, one behind the other.
  [[nodiscard]] Kokkos::View<A*, Memory> flat() const { return flat_; }
  /// Number of parameters on this rank.
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(flat_.size()); }

  Array<A**> in_proj_weight;   ///< (projection_width, d_model), rows z | x | B | C | dt
  Array<A*> in_proj_bias;      ///< (projection_width), with `bias`
  Array<A**> conv_weight;      ///< (conv_channels, d_conv), channels x | B | C
  Array<A*> conv_bias;         ///< (conv_channels), with `conv_bias`
  Array<A*> dt_bias;           ///< (heads)
  Array<A*> A_log;             ///< (heads)
  Array<A*> D;                 ///< (heads), unless D_has_hdim
  Array<A**> D_per_channel;    ///< (heads, head_dim), with D_has_hdim
  Array<A*> norm_weight;       ///< (d_inner), with rmsnorm
  Array<A**> out_proj_weight;  ///< (d_model, d_inner)
  Array<A*> out_proj_bias;     ///< (d_model), with `bias`

 private:
  Kokkos::View<A*, Memory> flat_;
};

/// All gradients = 0.
template <Scalar T, class Exec>
void zero(const Exec& exec, const MambaGradients<T, Exec>& gradients);

/// Replaces the gradients by `scale` times their sum over the ranks of `context`, in one all_reduce that adds in
/// ascending rank order. MambaMixer::backward() leaves on every rank a partial gradient; their sum is the gradient of
/// the sum of all ranks' losses: scale = 1 for a loss that is a sum over tokens, 1 / ranks for the mean of losses that
/// are means over equally many tokens. Works for a communicator of context times data ranks as well, once and for both.
template <Scalar T, class Exec>
void reduce_gradients(const Exec& exec, const Communicator& context, const MambaGradients<T, Exec>& gradients,
                      double scale = 1);

}  // namespace krait
