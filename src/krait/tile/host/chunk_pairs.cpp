// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/chunk_pairs.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/chunk_pairs.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/chunk_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

template <class A>
struct StepsOf {
  ChunkSteps<A> steps;
  StepRule<A> rule;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const auto d = lanes.d;
    const auto raw = lanes.load(steps.delta);
    const auto unclamped = unclamped_step(d, rule, raw);
    const auto least = hn::Set(d, rule.dt_min);
    const auto most = hn::Set(d, rule.dt_max);
    const auto delta = clamp(d, unclamped, least, most);
    lanes.store(delta, steps.delta);
    lanes.store(hn::Mul(delta, hn::Set(d, steps.log_rate)), steps.log_decays);
    if (steps.slope == nullptr) return;
    auto slope = hn::Set(d, A(1));
    if (rule.dt_softplus) slope = hn::IfThenElse(hn::Gt(raw, hn::Set(d, A(20))), slope, sigmoid(d, raw));
    const auto outside = hn::Or(hn::Lt(unclamped, least), hn::Gt(unclamped, most));
    lanes.store(hn::IfThenZeroElse(outside, slope), steps.slope);
  }
};

template <class A>
struct FactorsOf {
  ChunkFactors<A> k;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const auto d = lanes.d;
    const auto high = lanes.load(k.high);
    const auto low = lanes.load(k.low);
    const auto last_high = hn::Set(d, k.high[k.tokens - 1]);
    const auto last_low = hn::Set(d, k.low[k.tokens - 1]);
    const auto leave = decay(d, hn::Add(hn::Sub(last_high, high), hn::Sub(last_low, low)));
    lanes.store(decay(d, hn::Add(high, low)), k.enter);
    if (k.leave != nullptr) lanes.store(leave, k.leave);
    lanes.store(hn::Mul(leave, lanes.load(k.delta)), k.inputs);
  }
};

/// Row m of the pairs.
template <class A>
struct PairsOfOutput {
  ChunkPairs<A> k;
  int m;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const auto d = lanes.d;
    const auto at = static_cast<std::int64_t>(m) * k.row;
    const int here = m + 1 - static_cast<int>(lanes.i);
    if (here <= 0) {
      lanes.store(hn::Zero(d), k.weights + at);
      return;
    }
    const auto before = hn::FirstN(d, static_cast<std::size_t>(here));
    const auto difference =
        hn::Add(hn::Sub(hn::Set(d, k.high[m]), lanes.load(k.high)), hn::Sub(hn::Set(d, k.low[m]), lanes.load(k.low)));
    const auto factor = decay(d, difference);
    // Selected before they are multiplied: what lies above the diagonal is nobody's.
    const auto weight = hn::Mul(hn::IfThenElseZero(before, lanes.load(k.scores + at)), factor);
    const auto pair = hn::IfThenElseZero(before, lanes.load(k.pairs + at));
    const auto gradient = hn::Mul(hn::Mul(pair, factor), lanes.load(k.delta));
    lanes.store(hn::Add(lanes.load(k.dscores + at), gradient), k.dscores + at);
    lanes.store(weight, k.weights + at);
    lanes.store(hn::Mul(pair, weight), k.pairs + at);
  }
};

/// Adds row m of the products to the sums over the rows behind it, and takes from these what lies between.
template <class A>
struct SumsBehind {
  ChunkPairs<A> k;
  int m;
  hn::Vec<hn::ScalableTag<A>> between;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) {
    const auto d = lanes.d;
    const int here = m + 1 - static_cast<int>(lanes.i);
    if (here <= 0) return;
    auto sum = lanes.load(k.pairs + static_cast<std::int64_t>(m) * k.row);
    if (m + 1 < k.tokens) sum = hn::Add(sum, lanes.load(k.columns));
    lanes.store(sum, k.columns);
    const auto before = hn::FirstN(d, static_cast<std::size_t>(here - 1));
    between = hn::Add(between, hn::IfThenElseZero(before, hn::Mul(lanes.load(k.delta), sum)));
  }
};

template <class A>
struct RowDot {
  const A* a;
  const A* b;
  hn::Vec<hn::ScalableTag<A>> sum;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) {
    sum = hn::MulAdd(lanes.load(a), lanes.load(b), sum);
  }
};

template <class A>
struct ColumnDots {
  TwoPanels<A> k;
  A* result;
  A* added;
  std::int64_t added_row;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    auto sum = hn::Zero(lanes.d);
    for (int i = 0; i < k.rows; ++i) {
      const auto a = lanes.load(k.a + i * k.a_row);
      sum = hn::MulAdd(a, lanes.load(k.b + i * k.b_row), sum);
      if (added != nullptr) {
        A* const to = added + i * added_row;
        lanes.store(hn::Add(lanes.load(to), a), to);
      }
    }
    lanes.store(sum, result);
  }
};

template <class A>
struct ScaledRow {
  A factor;
  A* a;
  const A* skip;
  const A* b;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    auto v = hn::Mul(hn::Set(lanes.d, factor), lanes.load(a));
    if (skip != nullptr) v = hn::MulAdd(lanes.load(skip), lanes.load(b), v);
    lanes.store(v, a);
  }
};

template <class A>
struct ScaledColumns {
  int rows;
  const A* factors;
  A* a;
  std::int64_t a_row;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const auto factor = lanes.load(factors);
    for (int i = 0; i < rows; ++i) lanes.store(hn::Mul(factor, lanes.load(a + i * a_row)), a + i * a_row);
  }
};

template <class A>
void chunk_steps_here(const ChunkSteps<A>& steps, const StepRule<A>& rule) {
  for_lanes<A>(steps.tokens, StepsOf<A>{steps, rule});
}

template <class A>
void chunk_factors_here(const ChunkFactors<A>& factors) {
  for_lanes<A>(factors.tokens, FactorsOf<A>{factors});
}

template <class A>
void chunk_pairs_here(const ChunkPairs<A>& k) {
  const hn::ScalableTag<A> d;
  for (int m = 0; m < k.tokens; ++m) for_lanes<A>(k.tokens, PairsOfOutput<A>{k, m});
  for (int m = k.tokens - 1; m >= 0; --m) {
    k.between[m] = hn::ReduceSum(d, for_lanes<A>(k.tokens, SumsBehind<A>{k, m, hn::Zero(d)}).between);
  }
}

template <class A>
void row_dots_here(const TwoPanels<A>& k, A* result) {
  const hn::ScalableTag<A> d;
  for (int i = 0; i < k.rows; ++i) {
    result[i] =
        hn::ReduceSum(d, for_lanes<A>(k.columns, RowDot<A>{k.a + i * k.a_row, k.b + i * k.b_row, hn::Zero(d)}).sum);
  }
}

template <class A>
void column_dots_here(const TwoPanels<A>& k, A* result, A* sum, std::int64_t sum_row) {
  for_lanes<A>(k.columns, ColumnDots<A>{k, result, sum, sum_row});
}

template <class A>
void scale_rows_here(int rows, int columns, const A* factors, A* a, std::int64_t a_row, const A* skip, const A* b,
                     std::int64_t b_row) {
  for (int i = 0; i < rows; ++i) {
    for_lanes<A>(columns, ScaledRow<A>{factors[i], a + i * a_row, skip, b == nullptr ? nullptr : b + i * b_row});
  }
}

template <class A>
void scale_columns_here(int rows, int columns, const A* factors, A* a, std::int64_t a_row) {
  for_lanes<A>(columns, ScaledColumns<A>{rows, factors, a, a_row});
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class A>
void chunk_steps(const ChunkSteps<A>& steps, const StepRule<A>& rule) {
  HWY_EXPORT_T(Table, chunk_steps_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(steps, rule);
}

template <class A>
void chunk_factors(const ChunkFactors<A>& factors) {
  HWY_EXPORT_T(Table, chunk_factors_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(factors);
}

template <class A>
void chunk_pairs(const ChunkPairs<A>& pairs) {
  HWY_EXPORT_T(Table, chunk_pairs_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(pairs);
}

template <class A>
void row_dots(const TwoPanels<A>& panels, A* result) {
  HWY_EXPORT_T(Table, row_dots_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(panels, result);
}

template <class A>
void column_dots(const TwoPanels<A>& panels, A* result, A* sum, std::int64_t sum_row) {
  HWY_EXPORT_T(Table, column_dots_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(panels, result, sum, sum_row);
}

template <class A>
void scale_rows(int rows, int columns, const A* factors, A* a, std::int64_t a_row, const A* skip, const A* b,
                std::int64_t b_row) {
  HWY_EXPORT_T(Table, scale_rows_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(rows, columns, factors, a, a_row, skip, b, b_row);
}

template <class A>
void scale_columns(int rows, int columns, const A* factors, A* a, std::int64_t a_row) {
  HWY_EXPORT_T(Table, scale_columns_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(rows, columns, factors, a, a_row);
}

#define KRAIT_INSTANTIATE(A)                                                                           \
  template void chunk_steps<A>(const ChunkSteps<A>&, const StepRule<A>&);                              \
  template void chunk_factors<A>(const ChunkFactors<A>&);                                              \
  template void chunk_pairs<A>(const ChunkPairs<A>&);                                                  \
  template void row_dots<A>(const TwoPanels<A>&, A*);                                                  \
  template void column_dots<A>(const TwoPanels<A>&, A*, A*, std::int64_t);                             \
  template void scale_rows<A>(int, int, const A*, A*, std::int64_t, const A*, const A*, std::int64_t); \
  template void scale_columns<A>(int, int, const A*, A*, std::int64_t);
KRAIT_INSTANTIATE(float)
KRAIT_INSTANTIATE(double)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
