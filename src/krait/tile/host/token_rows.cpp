// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/token_rows.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/token_rows.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/vector_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

template <class T, class A>
struct LoadRow {
  const T* from;
  A* to;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    lanes.store(lanes.load(from), to);
  }
};

template <class T, class A>
struct StoreRow {
  const A* from;
  const T* z;
  T* y;
  T* out;
  bool past_cache;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    auto v = lanes.load(from);
    if (y != nullptr) lanes.store(v, y);
    if (z != nullptr) v = hn::Mul(v, silu(lanes.d, lanes.load(z)));
    lanes.store(v, out, past_cache);
  }
};

/// Row t of rows of scalars that are not defined here.
template <class T>
HWY_INLINE const T* row_of(const T* rows, std::int64_t pitch, int t) {
  return reinterpret_cast<const T*>(reinterpret_cast<const typename Stored<T>::Type*>(rows) + t * pitch);
}

template <class T>
void load_rows_here(const InputRows<T, accumulator_of<T>>& rows) {
  using A = accumulator_of<T>;
  for (int t = 0; t < rows.tokens; ++t) {
    for_lanes<A>(rows.channels, LoadRow<T, A>{row_of(rows.from, rows.pitch, t), rows.to + t * rows.row});
  }
}

template <class T>
void store_rows_here(const OutputRows<T, accumulator_of<T>>& rows) {
  using A = accumulator_of<T>;
  for (int t = 0; t < rows.tokens; ++t) {
    const bool past_cache = rows.past_cache && streams<A>(rows.out[t]);
    for_lanes<A>(rows.channels, StoreRow<T, A>{rows.from + t * rows.row, rows.z == nullptr ? nullptr : rows.z[t],
                                               rows.y == nullptr ? nullptr : rows.y[t], rows.out[t], past_cache});
  }
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class T, class A>
void load_rows(const InputRows<T, A>& rows) {
  HWY_EXPORT_T(Table, load_rows_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(rows);
}

template <class T, class A>
void store_rows(const OutputRows<T, A>& rows) {
  HWY_EXPORT_T(Table, store_rows_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(rows);
}

#define KRAIT_INSTANTIATE(T, A)                          \
  template void load_rows<T, A>(const InputRows<T, A>&); \
  template void store_rows<T, A>(const OutputRows<T, A>&);
KRAIT_INSTANTIATE(float, float)
KRAIT_INSTANTIATE(double, double)
KRAIT_INSTANTIATE(bfloat16, float)
KRAIT_INSTANTIATE(float16, float)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
