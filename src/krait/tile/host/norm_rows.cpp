// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/norm_rows.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/norm_rows.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/vector_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

template <class A>
using Tag = hn::ScalableTag<A>;
template <class A>
using Vector = hn::Vec<Tag<A>>;

/// A sum over features: one partial sum per lane, the lanes added at the end.
template <class A>
struct Sum {
  Vector<A> lanes;

  HWY_INLINE Sum() : lanes(hn::Zero(Tag<A>())) {}
  HWY_INLINE void add_product(Vector<A> a, Vector<A> b) { lanes = hn::MulAdd(a, b, lanes); }
  HWY_INLINE A total() const { return hn::ReduceSum(Tag<A>(), lanes); }
};

/// Row or 1, row or 0.
template <class Lanes, class A>
HWY_INLINE auto load_or(const Lanes& lanes, const A* row, A otherwise) {
  return row == nullptr ? hn::Set(lanes.d, otherwise) : lanes.load(row);
}

template <class T, class A>
struct NormLoad {
  NormGroup<T, A> group;
  A* values;
  Sum<A> squares = {};

  template <class Lanes, int Count>
  HWY_INLINE void run(const Lanes (&lanes)[Count]) {
    typename Lanes::V v[Count];
    for (int i = 0; i < Count; ++i) {
      lanes[i].prefetch_ahead(group.x);
      v[i] = lanes[i].load(group.x);
    }
    if (group.gated_before()) {
      typename Lanes::V gates[Count];
      for (int i = 0; i < Count; ++i) {
        lanes[i].prefetch_ahead(group.z);
        gates[i] = lanes[i].load(group.z);
      }
      silus(lanes[0].d, gates);
      for (int i = 0; i < Count; ++i) v[i] = hn::Mul(v[i], gates[i]);
    }
    for (int i = 0; i < Count; ++i) {
      lanes[i].store(v[i], values);
      squares.add_product(v[i], v[i]);
    }
  }
};

template <class T, class A>
struct NormStore {
  NormGroup<T, A> group;
  A scale;
  const A* values;
  T* out;
  bool past_cache;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    if (group.next.x != nullptr) lanes.prefetch(group.next.x);
    if (group.next.z != nullptr) lanes.prefetch(group.next.z);
    const auto n = hn::Mul(lanes.load(values), hn::Set(lanes.d, scale));
    auto y = hn::MulAdd(n, load_or(lanes, group.weight, A(1)), load_or(lanes, group.bias, A(0)));
    if (group.gated_after()) y = hn::Mul(y, silu(lanes.d, lanes.load(group.z)));
    lanes.store(y, out, past_cache);
  }
};

template <class T, class A>
struct NormGradientSums {
  NormGroup<T, A> group;
  const T* dout;
  A* sigmoids;
  Sum<A> squares = {};
  Sum<A> products = {};

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) {
    lanes.prefetch_ahead(group.x);
    lanes.prefetch_ahead(dout);
    if (group.z != nullptr) lanes.prefetch_ahead(group.z);
    const auto x = lanes.load(group.x);
    auto v = x;
    auto gated = x;
    if (group.z != nullptr) {
      const auto z = lanes.load(group.z);
      const auto s = sigmoid(lanes.d, z);
      lanes.store(s, sigmoids);
      gated = hn::Mul(x, hn::Mul(z, s));
      if (group.gate_first) v = gated;
    }
    squares.add_product(v, v);
    products.add_product(gated, hn::Mul(load_or(lanes, group.weight, A(1)), lanes.load(dout)));
  }
};

template <class T, class A>
struct NormGradient {
  NormGroup<T, A> group;
  const T* dout;
  const A* sigmoids;
  A r;
  A c;
  NormGradients<T, A> to;
  bool past_cache;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const auto d = lanes.d;
    if (group.next.x != nullptr) lanes.prefetch(group.next.x);
    if (group.next.z != nullptr) lanes.prefetch(group.next.z);
    if (group.next.dout != nullptr) lanes.prefetch(group.next.dout);
    const auto x = lanes.load(group.x);
    const auto g = lanes.load(dout);
    const auto weight = load_or(lanes, group.weight, A(1));
    const auto root = hn::Set(d, r);
    auto gate = hn::Set(d, A(1));
    auto slope = hn::Zero(d);
    if (group.z != nullptr) {
      const auto z = lanes.load(group.z);
      const auto s = lanes.load(sigmoids);
      gate = hn::Mul(z, s);
      slope = silu_derivative(d, z, s);
    }
    const bool before = group.gated_before();
    const bool after = group.gated_after();
    const auto n = hn::Mul(before ? hn::Mul(x, gate) : x, root);
    const auto dy = after ? hn::Mul(g, gate) : g;
    const auto dv = hn::Mul(hn::NegMulAdd(n, hn::Set(d, c), hn::Mul(weight, dy)), root);
    if (after || to.out != nullptr) {
      const auto y = hn::MulAdd(n, weight, load_or(lanes, group.bias, A(0)));
      if (after) lanes.store(hn::Mul(hn::Mul(g, y), slope), to.dz, past_cache);
      if (to.out != nullptr) lanes.store(after ? hn::Mul(y, gate) : y, to.out, past_cache);
    }
    if (before) lanes.store(hn::Mul(hn::Mul(dv, x), slope), to.dz, past_cache);
    if (to.dweight != nullptr) lanes.store(hn::MulAdd(dy, n, lanes.load(to.dweight)), to.dweight);
    if (to.dbias != nullptr) lanes.store(hn::Add(dy, lanes.load(to.dbias)), to.dbias);
    lanes.store(before ? hn::Mul(dv, gate) : dv, to.dx, past_cache);
  }
};

/// Of a short group, whose values are still in the cache.
template <class A>
struct NormSquares {
  const A* values;
  Sum<A> squares = {};

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) {
    const auto v = lanes.load(values);
    squares.add_product(v, v);
  }
};

template <class T, class A = accumulator_of<T>>
void norm_load_here(const NormGroup<T, A>& group, A* values, A* squares) {
  const auto all = for_some_lanes<A>(group.features(), NormLoad<T, A>{group, values});
  if (group.groups == 1) {
    squares[0] = all.squares.total();
    return;
  }
  for (std::int64_t g = 0; g < group.groups; ++g)
    squares[g] = for_lanes<A>(group.count, NormSquares<A>{values}, g * group.count).squares.total();
}

template <class T, class A = accumulator_of<T>>
void norm_store_here(const NormGroup<T, A>& group, const A* scales, A* values, T* out) {
  bool streamed = false;
  for (std::int64_t g = 0; g < group.groups; ++g) {
    const std::int64_t first = g * group.count;
    const bool past_cache = group.past_cache && streams<A>(out, first);
    for_lanes<A>(group.count, NormStore<T, A>{group, scales[g], values, out, past_cache}, first);
    streamed = streamed || past_cache;
  }
  if (streamed) hwy::FlushStream();
}

template <class T, class A = accumulator_of<T>>
NormSums<A> norm_gradient_sums_here(const NormGroup<T, A>& group, const T* dout, A* sigmoids) {
  const auto sums = for_lanes<A>(group.count, NormGradientSums<T, A>{group, dout, sigmoids});
  return {sums.squares.total(), sums.products.total()};
}

template <class T, class A = accumulator_of<T>>
void norm_gradient_here(const NormGroup<T, A>& group, const T* dout, const A* sigmoids, A r, A c,
                        const NormGradients<T, A>& to) {
  const bool past_cache = group.past_cache && streams<A>(to.dx) && (to.dz == nullptr || streams<A>(to.dz)) &&
                          (to.out == nullptr || streams<A>(to.out));
  for_lanes<A>(group.count, NormGradient<T, A>{group, dout, sigmoids, r, c, to, past_cache});
  if (past_cache) hwy::FlushStream();
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class T, class A>
void norm_load(const NormGroup<T, A>& group, A* values, A* squares) {
  HWY_EXPORT_T(Table, norm_load_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(group, values, squares);
}

template <class T, class A>
void norm_store(const NormGroup<T, A>& group, const A* scales, A* values, T* out) {
  HWY_EXPORT_T(Table, norm_store_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(group, scales, values, out);
}

template <class T, class A>
NormSums<A> norm_gradient_sums(const NormGroup<T, A>& group, const T* dout, A* sigmoids) {
  HWY_EXPORT_T(Table, norm_gradient_sums_here<T>);
  return HWY_DYNAMIC_DISPATCH_T(Table)(group, dout, sigmoids);
}

template <class T, class A>
void norm_gradient(const NormGroup<T, A>& group, const T* dout, const A* sigmoids, A r, A c,
                   const NormGradients<T, A>& to) {
  HWY_EXPORT_T(Table, norm_gradient_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(group, dout, sigmoids, r, c, to);
}

#define KRAIT_INSTANTIATE(T, A)                                                        \
  template void norm_load<T, A>(const NormGroup<T, A>&, A*, A*);                       \
  template void norm_store<T, A>(const NormGroup<T, A>&, const A*, A*, T*);            \
  template NormSums<A> norm_gradient_sums<T, A>(const NormGroup<T, A>&, const T*, A*); \
  template void norm_gradient<T, A>(const NormGroup<T, A>&, const T*, const A*, A, A, const NormGradients<T, A>&);
KRAIT_INSTANTIATE(float, float)
KRAIT_INSTANTIATE(double, double)
KRAIT_INSTANTIATE(bfloat16, float)
KRAIT_INSTANTIATE(float16, float)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
