// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <krait/ops/activation.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

/// Storage of states between chunks and in caches.
enum class StateType { accumulator, bfloat16 };

/// Arguments of a Mamba-2 mixer, with the names and defaults of Megatron-LM (`head_dim`, `heads` and `groups` are its
/// headdim, nheads and ngroups; mamba_ssm's defaults are 1 group and chunks of 256). All extents are those of the whole
/// layer, before any split over ranks.
struct MambaConfig {
  std::int64_t d_model = 0;    ///< width of the hidden states; must be given
  std::int64_t expand = 2;     ///< d_inner = expand * d_model, unless `heads` is given
  std::int64_t head_dim = 64;  ///< width of a head
  std::int64_t heads = 0;      ///< 0: d_inner / head_dim; else d_inner = heads * head_dim
  std::int64_t groups = 8;     ///< groups of heads that share B and C
  std::int64_t d_state = 128;  ///< state width
  std::int64_t d_conv = 4;     ///< convolution taps, 1...16
  std::int64_t chunk_size = 128;

  bool conv_bias = true;
  bool bias = false;                     ///< bias of both projections
  std::optional<double> conv_init = {};  ///< bound of the convolution weights; else 1 / sqrt(d_conv)
  Activation activation = Activation::silu;

  std::pair<double, double> A_init_range = {1.0, 16.0};
  bool D_has_hdim = false;  ///< D per channel instead of per head
  bool rmsnorm = true;      ///< false: only the gate, y * silu(z)
  bool norm_before_gate = false;
  double norm_eps = 1e-5;

  double dt_min = 0.001;  ///< range of the initial step sizes, log-uniform
  double dt_max = 0.1;
  double dt_init_floor = 1e-4;
  std::string dt_init = "random";  ///< accepted for compatibility; nothing else is known upstream either
  double dt_scale = 1.0;           ///< likewise
  std::pair<double, double> dt_limit = {0.0, std::numeric_limits<double>::infinity()};

  bool use_mem_eff_path = true;  ///< which intermediates a backward keeps; the forward is the same
  StateType state_dtype = StateType::accumulator;

  std::optional<std::int64_t> layer_number = {};  ///< identity of the layer, for caches and checkpoints
  std::int64_t pp_layer_offset = 0;
  std::string name = {};

  [[nodiscard]] std::int64_t d_inner() const { return heads > 0 ? heads * head_dim : expand * d_model; }
  [[nodiscard]] std::int64_t head_count() const { return heads > 0 ? heads : d_inner() / head_dim; }
  /// Rows of in_proj: z | x | B | C | dt.
  [[nodiscard]] std::int64_t projection_width() const { return 2 * d_inner() + 2 * groups * d_state + head_count(); }

  /// \throws ConfigError naming the value when a mixer can never be built from this, with `tensor_ranks`
  ///         tensor-parallel ranks
  void validate(int tensor_ranks = 1) const;

  /// The operator's part of the configuration on one of `tensor_ranks` ranks.
  [[nodiscard]] SequenceOperatorConfig sequence_operator(int tensor_ranks, Divisibility divisibility) const;
};

}  // namespace krait
