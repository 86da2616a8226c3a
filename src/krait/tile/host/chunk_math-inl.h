// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Steps and decays of a chunk in vectors. Compiled once per instruction set: include it behind hwy/foreach_target.h,
// and no Kokkos in the same source file.

// clang-format off
#if defined(KRAIT_TILE_HOST_CHUNK_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef KRAIT_TILE_HOST_CHUNK_MATH_INL_H
#undef KRAIT_TILE_HOST_CHUNK_MATH_INL_H
#else
#define KRAIT_TILE_HOST_CHUNK_MATH_INL_H
#endif
// clang-format on

#include <krait/tile/host/vector_math-inl.h>
#include <krait/tile/scan_chunk.hpp>

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

/// NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V clamp(D, V v, V least, V most) {
  const V raised = hn::IfThenElse(hn::Lt(v, least), least, v);
  return hn::IfThenElse(hn::Gt(raised, most), most, raised);
}

/// The lowest exponent whose exponential is not denormal.
template <class D>
HWY_INLINE hn::Vec<D> lowest_exponent(D d) {
  using A = hn::TFromD<D>;
  return hn::Set(d, sizeof(A) == 4 ? A(-87) : A(-708));
}

/// exp(v) for v <= 0, and 0 where it would be denormal.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V decay(D d, V v) {
  const V lowest = lowest_exponent(d);
  return hn::IfThenZeroElse(hn::Lt(v, lowest), hn::Exp(d, clamp(d, v, lowest, hn::Zero(d))));
}

/// The step size before the clamp.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V unclamped_step(D d, const StepRule<hn::TFromD<D>>& rule, V raw) {
  if (!rule.dt_softplus) return raw;
  const V linear = hn::Set(d, hn::TFromD<D>(20));  // from here on softplus is the identity
  const V soft = hn::Log1p(d, hn::Exp(d, clamp(d, raw, lowest_exponent(d), linear)));
  return hn::IfThenElse(hn::Gt(raw, linear), raw, soft);
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KRAIT_TILE_HOST_CHUNK_MATH_INL_H
