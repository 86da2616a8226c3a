// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Vectors of Krait's scalars, and the activation. Compiled once per instruction set: include it behind
// hwy/foreach_target.h, and no Kokkos in the same source file.

// clang-format off
#if defined(KRAIT_TILE_HOST_VECTOR_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef KRAIT_TILE_HOST_VECTOR_MATH_INL_H
#undef KRAIT_TILE_HOST_VECTOR_MATH_INL_H
#else
#define KRAIT_TILE_HOST_VECTOR_MATH_INL_H
#endif
// clang-format on

#include <hwy/cache_control.h>
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace krait {

class bfloat16;
class float16;

namespace tile::host::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// How Highway calls a storage scalar of Krait, and in what it is computed.
template <class T>
struct Stored {
  using Type = T;
  using Accumulator = T;
};
template <>
struct Stored<bfloat16> {
  using Type = hwy::bfloat16_t;
  using Accumulator = float;
};
template <>
struct Stored<float16> {
  using Type = hwy::float16_t;
  using Accumulator = float;
};
template <class T>
using accumulator_of = typename Stored<T>::Accumulator;

/// \name Conversion of float16 by its bits, as in core/scalars.hpp
/// Highway's own is an instruction from AVX2 on; before that it loses NaN and does not round subnormals to even.
/// \{
inline constexpr bool converts_float16_by_bits = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2;

template <class D, class VS>
HWY_INLINE hn::Vec<D> float16_value(D d, VS stored) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::PromoteTo(du, hn::BitCast(hn::Rebind<std::uint16_t, D>(), stored));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000U)));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffU));
  const auto normal = hn::Add(hn::ShiftLeft<13>(magnitude), hn::Set(du, 0x38000000U));
  const hn::RebindToSigned<D> di;
  const auto small = hn::BitCast(du, hn::Mul(hn::ConvertTo(d, hn::BitCast(di, magnitude)), hn::Set(d, 0x1p-24F)));
  const auto special = hn::Add(normal, hn::Set(du, 0x38000000U));  // infinity and NaN
  const auto finite = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x400U)), small, normal);
  return hn::BitCast(d, hn::Or(sign, hn::IfThenElse(hn::Ge(magnitude, hn::Set(du, 0x7c00U)), special, finite)));
}

template <class D>
HWY_INLINE auto float16_bits(D d, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffffffU));
  const auto sign = hn::ShiftRight<16>(hn::Xor(bits, magnitude));
  // The exponent moves from 127 to 15; half a unit is added, less one where the unit is even, and a carry goes on.
  const auto even = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1U));
  const auto normal = hn::ShiftRight<13>(hn::Add(hn::Sub(magnitude, hn::Set(du, 0x38000000U - 0xfffU)), even));
  // Below 2^-14 an addition rounds: the last bit of 1/2 is as large as that of a subnormal.
  const auto half = hn::Set(d, 0.5F);
  const auto small = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(du, half));
  const auto infinity = hn::Set(du, 0x7c00U);
  const auto nan = hn::Or(hn::Set(du, 0x7e00U), hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x3ffU)));
  auto result = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 0x38800000U)), small, normal);
  result = hn::IfThenElse(hn::Ge(magnitude, hn::Set(du, 0x47800000U)), infinity, result);
  result = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7f800000U)), nan, result);
  const hn::Rebind<std::uint16_t, D> narrow;
  return hn::BitCast(hn::Rebind<hwy::float16_t, D>(), hn::TruncateTo(narrow, hn::Or(sign, result)));
}
/// \}

/// Conversion to bfloat16 as in core/scalars.hpp, in two thirds of the instructions of Highway's.
template <class D>
HWY_INLINE auto bfloat16_bits(D /*d*/, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::TestBit(bits, hn::Set(du, 0x10000U));
  const auto rounded = hn::Add(bits, hn::IfThenElse(odd, hn::Set(du, 0x8000U), hn::Set(du, 0x7fffU)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000U));
  const auto result = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, rounded);
  const hn::Repartition<std::uint16_t, D> halves;
  const hn::Half<decltype(halves)> narrow;
  const auto upper = hn::BitCast(halves, result);
  return hn::BitCast(hn::Rebind<hwy::bfloat16_t, D>(), hn::LowerHalf(narrow, hn::ConcatOdd(halves, upper, upper)));
}

/// Whether vectors as they are stored can go to memory past the cache: less than 16 bytes cannot.
template <class DS>
inline constexpr bool can_stream = hn::MaxLanes(DS()) * sizeof(hn::TFromD<DS>) >= 16;

/// Elements [i, i + Lanes(D)) of rows, or only the first `count` of them at the end of a row.
template <class Accumulator, bool Whole, class Tag = hn::ScalableTag<Accumulator>>
struct Lanes {
  using A = Accumulator;
  using D = Tag;
  using V = hn::Vec<D>;
  D d;
  std::size_t i;
  std::size_t count;

  template <class T>
  HWY_INLINE V load(const T* row) const {
    using S = typename Stored<T>::Type;
    const S* from = reinterpret_cast<const S*>(row) + i;
    if constexpr (std::is_same_v<S, A>) {
      return part(d, from);
    } else if constexpr (std::is_same_v<S, hwy::float16_t> && converts_float16_by_bits) {
      return float16_value(d, part(hn::Rebind<S, D>(), from));
    } else {
      return hn::PromoteTo(d, part(hn::Rebind<S, D>(), from));
    }
  }

  template <class T>
  HWY_INLINE void store(V v, T* row) const {
    store(v, row, false);
  }

  /// `past_cache`: only where streams() allows it.
  template <class T>
  HWY_INLINE void store(V v, T* row, bool past_cache) const {
    using S = typename Stored<T>::Type;
    S* to = reinterpret_cast<S*>(row) + i;
    if constexpr (std::is_same_v<S, A>) {
      put(d, v, to, past_cache);
    } else if constexpr (std::is_same_v<S, hwy::float16_t> && converts_float16_by_bits) {
      put(hn::Rebind<S, D>(), float16_bits(d, v), to, past_cache);
    } else if constexpr (std::is_same_v<S, hwy::bfloat16_t> && HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3) {
      put(hn::Rebind<S, D>(), bfloat16_bits(d, v), to, past_cache);
    } else {
      const hn::Rebind<S, D> narrow;
      put(narrow, hn::DemoteTo(narrow, v), to, past_cache);
    }
  }

  /// Asks for elements of a row that a later loop will load. The hardware foresees a few long rows by itself, but not
  /// several short ones side by side, nor reads that stop while something is written.
  template <class T>
  HWY_INLINE void prefetch(const T* row) const {
    hwy::Prefetch(reinterpret_cast<const typename Stored<T>::Type*>(row) + i);
  }

  /// The same for a row that this loop is reading.
  template <class T>
  HWY_INLINE void prefetch_ahead(const T* row) const {
    constexpr std::size_t ahead = 512;  // bytes
    hwy::Prefetch(reinterpret_cast<const char*>(reinterpret_cast<const typename Stored<T>::Type*>(row) + i) + ahead);
  }

 private:
  template <class DS, class S>
  HWY_INLINE auto part(DS ds, const S* from) const {
    if constexpr (Whole) return hn::LoadU(ds, from);
    return hn::LoadN(ds, from, count);
  }
  template <class DS, class VS, class S>
  HWY_INLINE void put(DS ds, VS v, S* to, bool past_cache) const {
    if constexpr (!Whole) {
      hn::StoreN(v, ds, to, count);
    } else {
      if constexpr (can_stream<DS>) {
        if (past_cache) return hn::Stream(v, ds, to);
      }
      hn::StoreU(v, ds, to);
    }
  }
};

/// Whether vectors of the row can go to memory past the cache: they have to be whole and the row has to begin where a
/// vector may.
template <class A, class T>
HWY_INLINE bool streams(const T* row, std::int64_t first = 0) {
  using DS = hn::Rebind<typename Stored<T>::Type, hn::ScalableTag<A>>;
  const auto* begin = reinterpret_cast<const hn::TFromD<DS>*>(row) + first;
  return can_stream<DS> && reinterpret_cast<std::uintptr_t>(begin) % (hn::Lanes(DS()) * sizeof(hn::TFromD<DS>)) == 0;
}

/// body.run(lanes) for all of [first, first + size); returns the body as it is then. It is a copy that nothing else
/// knows of, so what it holds stays in registers whatever the loop stores.
template <class A, class Body>
HWY_INLINE Body for_lanes(std::int64_t size, Body body, std::int64_t first = 0) {
  const hn::ScalableTag<A> d;
  const std::size_t width = hn::Lanes(d);
  const auto end = static_cast<std::size_t>(first + size);
  auto i = static_cast<std::size_t>(first);
  for (; i + width <= end; i += width) body.run(Lanes<A, true>{d, i, width});
  if (i < end) body.run(Lanes<A, false>{d, i, end - i});
  return body;
}

/// The same with four vectors at a time where there are so many, body.run(lanes) with an array of one or four: for
/// chains of operations that are long.
template <class A, class Body>
HWY_INLINE Body for_some_lanes(std::int64_t size, Body body) {
  using Here = Lanes<A, true>;
  const hn::ScalableTag<A> d;
  const std::size_t width = hn::Lanes(d);
  const auto end = static_cast<std::size_t>(size);
  std::size_t i = 0;
  for (; i + 4 * width <= end; i += 4 * width) {
    const Here some[] = {{d, i, width}, {d, i + width, width}, {d, i + 2 * width, width}, {d, i + 3 * width, width}};
    body.run(some);
  }
  for (; i + width <= end; i += width) {
    const Here one[] = {{d, i, width}};
    body.run(one);
  }
  if (i < end) {
    const Lanes<A, false> rest[] = {{d, i, end - i}};
    body.run(rest);
  }
  return body;
}

/// v = exp(-v) for |v| <= 87 or 708, for `Count` vectors step by step: a processor that waits for one works on the
/// others.
template <int Count, class D, class V = hn::Vec<D>>
HWY_INLINE void exp_of_negative(D d, V (&v)[Count]) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    for (V& each : v) each = hn::Exp(d, hn::Neg(each));
  } else {
    // v log2(e) = n + r with |r| <= 1/2. The polynomial is the best of its degree for 2^-r, relative error 1e-7; n is
    // taken from the exponent.
    constexpr float polynomial[] = {9.67161901e-3F, -5.55073504e-2F, 2.40222404e-1F, -6.93146976e-1F, 1.0F};
    const hn::RebindToUnsigned<D> du;
    const V log2_e = hn::Set(d, 1.44269504F);
    const V rounder = hn::Set(d, 0x1.8p23F);  // added to a number, leaves its nearest integer in the low bits
    V shifted[Count];
    V p[Count];
    for (int i = 0; i < Count; ++i) shifted[i] = hn::MulAdd(v[i], log2_e, rounder);
    for (int i = 0; i < Count; ++i) v[i] = hn::MulSub(v[i], log2_e, hn::Sub(shifted[i], rounder));
    for (int i = 0; i < Count; ++i) p[i] = hn::Set(d, -1.32645908e-3F);
    for (const float coefficient : polynomial) {
      for (int i = 0; i < Count; ++i) p[i] = hn::MulAdd(v[i], p[i], hn::Set(d, coefficient));
    }
    for (int i = 0; i < Count; ++i)
      v[i] = hn::BitCast(d, hn::Sub(hn::BitCast(du, p[i]), hn::ShiftLeft<23>(hn::BitCast(du, shifted[i]))));
  }
}

/// s = 1 / (1 + exp(-v)), 0 where it would be denormal; `Count` vectors step by step.
template <int Count, class D, class V = hn::Vec<D>>
HWY_INLINE void sigmoids(D d, const V (&v)[Count], V (&s)[Count]) {
  const V one = hn::Set(d, hn::TFromD<D>(1));
  constexpr int bound = sizeof(hn::TFromD<D>) == 4 ? 87 : 708;
  const V most = hn::Set(d, hn::TFromD<D>(bound));
  const V least = hn::Set(d, hn::TFromD<D>(-bound));
  for (int i = 0; i < Count; ++i) s[i] = hn::Min(hn::Max(v[i], least), most);
  exp_of_negative(d, s);
  for (int i = 0; i < Count; ++i) s[i] = hn::IfThenElseZero(hn::Ge(v[i], least), hn::Div(one, hn::Add(one, s[i])));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid(D d, V v) {
  const V values[1] = {v};
  V result[1];
  sigmoids(d, values, result);
  return result[0];
}

/// 1 / v for v >= 1, to a unit or two in the last place.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V reciprocal(D d, V v) {
  const V one = hn::Set(d, hn::TFromD<D>(1));
  if constexpr (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 && sizeof(hn::TFromD<D>) == 4) {
    // A division of 512 bits takes longer than an approximation to 14 bits and a step of Newton's.
    const V r = hn::ApproximateReciprocal(v);
    return hn::MulAdd(hn::NegMulAdd(v, r, one), r, r);
  } else {
    return hn::Div(one, v);
  }
}

/// v = v sigmoid(v), `Count` vectors step by step. Below -87, or -708, the result is that of the bound, -1e-36 or less
/// in size.
template <int Count, class D, class V = hn::Vec<D>>
HWY_INLINE void silus(D d, V (&v)[Count]) {
  using A = hn::TFromD<D>;
  const V one = hn::Set(d, A(1));
  const V most = hn::Set(d, sizeof(A) == 4 ? A(87) : A(708));
  V e[Count];
  // In this order of arguments a NaN stays one.
  for (int i = 0; i < Count; ++i) v[i] = hn::Max(hn::Neg(most), v[i]);
  for (int i = 0; i < Count; ++i) e[i] = hn::Min(most, v[i]);
  exp_of_negative(d, e);
  for (int i = 0; i < Count; ++i) v[i] = hn::Mul(v[i], reciprocal(d, hn::Add(one, e[i])));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V silu(D d, V v) {
  V values[1] = {v};
  silus(d, values);
  return values[0];
}

/// d silu / dv = sigmoid(v) (1 + v (1 - sigmoid(v))), given s = sigmoid(v)
template <class D, class V = hn::Vec<D>>
HWY_INLINE V silu_derivative(D d, V v, V s) {
  return hn::MulAdd(hn::Mul(v, s), hn::Sub(hn::Set(d, hn::TFromD<D>(1)), s), s);
}

}  // namespace tile::host::HWY_NAMESPACE
}  // namespace krait
HWY_AFTER_NAMESPACE();

#endif  // KRAIT_TILE_HOST_VECTOR_MATH_INL_H
