// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/state_rows.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/state_rows.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/vector_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

/// `Rows` rows of the state, side by side: a vector of B and C serves all of them, and no sum waits for another.
template <int Rows, class T, class A>
struct AdvanceRows {
  using V = hn::Vec<hn::ScalableTag<A>>;

  A* state;
  std::int64_t pitch;
  const T* b;
  const T* c;
  V decay;
  V in[Rows];
  V sums[Rows];

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) {
    const V b_here = lanes.load(b);
    const V c_here = lanes.load(c);
    for (int r = 0; r < Rows; ++r) {
      A* row = state + r * pitch;
      const V s = hn::MulAdd(in[r], b_here, hn::Mul(decay, lanes.load(row)));
      lanes.store(s, row);
      sums[r] = hn::MulAdd(s, c_here, sums[r]);
    }
  }
};

template <int Rows, class T, class A>
HWY_INLINE void advance(const StateRows<T, A>& all, int first) {
  const hn::ScalableTag<A> d;
  AdvanceRows<Rows, T, A> body{all.state + first * all.pitch, all.pitch, all.b, all.c, hn::Set(d, all.decay), {}, {}};
  for (int r = 0; r < Rows; ++r) {
    body.in[r] = hn::Set(d, all.step * all.x[first + r]);
    body.sums[r] = hn::Zero(d);
  }
  body = for_lanes<A>(all.columns, body);
  for (int r = 0; r < Rows; ++r) all.y[first + r] = hn::ReduceSum(d, body.sums[r]);
}

template <class T, class A = accumulator_of<T>>
void advance_state_rows_here(const StateRows<T, A>& rows) {
  int p = 0;
  for (; p + 4 <= rows.rows; p += 4) advance<4>(rows, p);
  for (; p < rows.rows; ++p) advance<1>(rows, p);
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class T, class A>
void advance_state_rows(const StateRows<T, A>& rows) {
  HWY_EXPORT_T(Table, advance_state_rows_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(rows);
}

#define KRAIT_INSTANTIATE(T, A) template void advance_state_rows<T, A>(const StateRows<T, A>&);
KRAIT_INSTANTIATE(float, float)
KRAIT_INSTANTIATE(double, double)
KRAIT_INSTANTIATE(bfloat16, float)
KRAIT_INSTANTIATE(float16, float)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
