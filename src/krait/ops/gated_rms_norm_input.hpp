// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What forward and backward of gated_rms_norm() share: the tensors that go in, and the mean square of a group.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <vector>

#include <krait/core/error.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/ops/checks.hpp>
#include <krait/tile/pack.hpp>
#include <krait/tile/rows.hpp>
#include <krait/tile/tile.hpp>

namespace krait::impl {

/// The inputs of the norm, as every kernel sees them.
template <Scalar T, class Exec>
struct NormInput {
  using A = accumulator_t<T>;

  Tensor<const T***, Exec> x;
  Tensor<const T***, Exec> z;
  Tensor<const A*, Exec> weight;
  Tensor<const A*, Exec> bias;
  std::int64_t length;
  std::int64_t group_size;
  std::int64_t groups;
  bool gate_first;
  bool gate_last;
  bool normalize;
  bool past_cache;  // of what a host writes
  A epsilon;

  [[nodiscard]] KOKKOS_FUNCTION bool gated() const { return gate_first || gate_last; }
  [[nodiscard]] KOKKOS_FUNCTION A weight_of(std::int64_t f) const {
    return weight.data() == nullptr ? A(1) : weight(f);
  }
  [[nodiscard]] KOKKOS_FUNCTION A bias_of(std::int64_t f) const { return bias.data() == nullptr ? A(0) : bias(f); }

  /// What the mean square is taken of.
  [[nodiscard]] KOKKOS_FUNCTION A normalized(std::int64_t row, std::int64_t token, std::int64_t f) const {
    const auto v = static_cast<A>(x(row, token, f));
    return gate_first ? v * tile::silu(static_cast<A>(z(row, token, f))) : v;
  }

  /// N neighbouring features of a token, as they are stored.
  template <int N>
  struct Loaded {
    tile::Pack<T, N> x;
    tile::Pack<T, N> z;
  };
  template <int N>
  [[nodiscard]] KOKKOS_FUNCTION Loaded<N> load(std::int64_t row, std::int64_t token, std::int64_t f) const {
    Loaded<N> loaded;
    loaded.x = tile::Pack<T, N>::load(&x(row, token, f));
    if (gate_first) loaded.z = tile::Pack<T, N>::load(&z(row, token, f));
    return loaded;
  }
  /// normalized() of them.
  template <int N>
  KOKKOS_FUNCTION void normalized(const Loaded<N>& loaded, A (&to)[N]) const {
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) to[n] = loaded.x[n];
    if (!gate_first) return;
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) to[n] *= tile::silu(loaded.z[n]);
  }

  /// Weights and biases of N neighbouring features.
  template <int N>
  KOKKOS_FUNCTION void parameters(std::int64_t f, A (&weights)[N], A (&biases)[N]) const {
    KRAIT_UNROLLED
    for (int n = 0; n < N; ++n) {
      weights[n] = A(1);
      biases[n] = A(0);
    }
    if (weight.data() != nullptr) tile::load_packs<N>(&weight(f), weights);
    if (bias.data() != nullptr) tile::load_packs<N>(&bias(f), biases);
  }

  /// Whether a GPU can take packs of features.
  [[nodiscard]] bool has_whole_packs() const {
    return group_size % tile::pack_size<T> == 0 && tile::has_whole_packs(x) && tile::has_whole_packs(z) &&
           tile::has_whole_packs(weight) && tile::has_whole_packs(bias);
  }

  /// The group that begins at feature `first` of a token, for the row functions; unit stride.
  [[nodiscard]] KOKKOS_FUNCTION tile::NormGroup<T, A> group(std::int64_t row, std::int64_t token,
                                                            std::int64_t first) const {
    return {group_size,
            &x(row, token, first),
            gated() ? &z(row, token, first) : nullptr,
            weight.data() == nullptr ? nullptr : &weight(first),
            bias.data() == nullptr ? nullptr : &bias(first),
            gate_first,
            past_cache};
  }

  /// The factor that normalises a group.
  [[nodiscard]] KOKKOS_FUNCTION A scale(A sum_of_squares) const {
    return normalize ? A(1) / Kokkos::sqrt(sum_of_squares / static_cast<A>(group_size) + epsilon) : A(1);
  }
};

/// Threads of a GPU that work on one group; each has room for `kept` features.
inline int norm_team_size(std::int64_t group_size, std::int64_t kept) {
  constexpr std::int64_t warp = 32;
  return static_cast<int>(std::min<std::int64_t>((group_size + kept * warp - 1) / (kept * warp) * warp, 256));
}

/// Features that a host thread works on at a time: what it derives from a whole group is kept where it fits.
inline constexpr std::int64_t norm_piece = 8192;

/// Features of the short groups that it works on together.
inline constexpr std::int64_t norm_span = 2048;

/// body(piece, begin) for one piece of the group after the other; `begin` is the first feature within the group.
template <class T, class A, class Body>
KOKKOS_INLINE_FUNCTION void for_norm_pieces(const tile::NormGroup<T, A>& group, const Body& body) {
  for (std::int64_t begin = 0; begin < group.count; begin += norm_piece) {
    const std::int64_t left = group.count - begin;
    body(group.part(begin, left < norm_piece ? left : norm_piece), begin);
  }
}

/// Whether the row functions can take the tensors, as far as they are given.
template <class... Views>
bool have_unit_features(const Views&... views) {
  return ((is_absent(views) || views.stride(Views::rank() - 1) == 1) && ...);
}

/// Features of a group; 0 stands for all of them.
template <class Arguments>
std::int64_t norm_group_size(const Arguments& arguments) {
  return arguments.group_size == 0 ? static_cast<std::int64_t>(arguments.x.extent(2)) : arguments.group_size;
}

/// The inputs among the arguments of gated_rms_norm() or gated_rms_norm_backward(), of at least one feature.
template <Scalar T, class Exec, class Arguments>
NormInput<T, Exec> norm_input(const Arguments& arguments) {
  const bool gate = !is_absent(arguments.z);
  const std::int64_t group_size = norm_group_size(arguments);
  return {arguments.x,
          arguments.z,
          arguments.weight,
          arguments.bias,
          static_cast<std::int64_t>(arguments.x.extent(1)),
          group_size,
          static_cast<std::int64_t>(arguments.x.extent(2)) / group_size,
          gate && !arguments.norm_before_gate,
          gate && arguments.norm_before_gate,
          arguments.normalize,
          goes_past_cache(arguments.x),
          static_cast<accumulator_t<T>>(arguments.epsilon)};
}

/// (b, L, groups)
template <class Arguments>
std::vector<std::int64_t> norm_group_extents(const Arguments& arguments) {
  auto shape = extents(arguments.x);
  if (shape[2] != 0) shape[2] /= norm_group_size(arguments);
  return shape;
}

template <class Arguments>
void check_norm_input(const char* name, const Arguments& arguments) {
  const auto shape = extents(arguments.x);
  const std::int64_t features = shape[2];
  if (!is_absent(arguments.z)) require_extents(name, "z", extents(arguments.z), shape);
  if (!is_absent(arguments.weight)) require_extents(name, "weight", extents(arguments.weight), {features});
  if (!is_absent(arguments.bias)) require_extents(name, "bias", extents(arguments.bias), {features});
  KRAIT_REQUIRE(ConfigError, !arguments.normalize || !is_absent(arguments.weight) || features == 0, name,
                ": weight is absent, expected one of extent ", features, " or normalize == false");
  KRAIT_REQUIRE(ConfigError, arguments.group_size >= 0 && (features == 0 || features % norm_group_size(arguments) == 0),
                name, ": group_size is ", arguments.group_size, ", expected a divisor of the ", features, " features");
  KRAIT_REQUIRE(ConfigError, arguments.epsilon >= 0, name, ": epsilon is ", arguments.epsilon, ", expected at least 0");
  if (!is_absent(arguments.rstd)) require_extents(name, "rstd", extents(arguments.rstd), norm_group_extents(arguments));
}

}  // namespace krait::impl
