// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/load.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/load.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/vector_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

/// The call in the types that Highway knows: those of Krait have no size here.
template <class From, class To>
HWY_INLINE auto known(const LoadCall<From, To>& call) {
  using KnownFrom = typename Stored<From>::Type;
  using KnownTo = typename Stored<To>::Type;
  return LoadCall<KnownFrom, KnownTo>{call.rows,
                                      call.columns,
                                      reinterpret_cast<const KnownFrom*>(call.from),
                                      call.from_pitch,
                                      reinterpret_cast<KnownTo*>(call.to),
                                      call.to_pitch};
}

/// What is loaded is asked for so many rows before: the hardware does not foresee short rows that are far apart.
inline constexpr int rows_ahead = 4;

template <class From, class To>
struct LoadRow {
  const From* from;
  const From* ahead;
  To* to;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    lanes.prefetch(ahead);
    lanes.store(lanes.load(from), to);
  }
};

template <class From, class To, class A = accumulator_of<From>>
HWY_INLINE void load_of(const LoadCall<From, To>& call) {
  const auto of = known(call);
  for (int i = 0; i < of.rows; ++i) {
    const auto* row = of.from + i * of.from_pitch;
    const auto* ahead = of.from + (i + rows_ahead < of.rows ? i + rows_ahead : i) * of.from_pitch;
    for_lanes<A>(of.columns, LoadRow{row, ahead, of.to + i * of.to_pitch});
  }
}

/// The transpose of a square block, a row a vector.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void transpose(D d, V (&rows)[4]) {
  const V even_lower = hn::InterleaveLower(d, rows[0], rows[2]);
  const V odd_lower = hn::InterleaveLower(d, rows[1], rows[3]);
  const V even_upper = hn::InterleaveUpper(d, rows[0], rows[2]);
  const V odd_upper = hn::InterleaveUpper(d, rows[1], rows[3]);
  rows[0] = hn::InterleaveLower(d, even_lower, odd_lower);
  rows[1] = hn::InterleaveUpper(d, even_lower, odd_lower);
  rows[2] = hn::InterleaveLower(d, even_upper, odd_upper);
  rows[3] = hn::InterleaveUpper(d, even_upper, odd_upper);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE void transpose(D d, V (&rows)[2]) {
  const V first = hn::InterleaveLower(d, rows[0], rows[1]);
  rows[1] = hn::InterleaveUpper(d, rows[0], rows[1]);
  rows[0] = first;
}

/// A block of `rows` x `columns` elements, or of a whole square of them.
template <class A, bool Whole, class From, class To>
HWY_INLINE void transpose_block(std::size_t rows, std::size_t columns, const From* from, std::int64_t from_pitch,
                                To* to, std::int64_t to_pitch) {
  constexpr std::size_t size = 16 / sizeof(A);
  using D = hn::FixedTag<A, size>;
  const Lanes<A, Whole, D> left{D(), 0, columns};
  const Lanes<A, Whole, D> right{D(), 0, rows};
  hn::Vec<D> block[size];
  for (std::size_t i = 0; i < size; ++i)
    block[i] = left.load(from + static_cast<std::int64_t>(Whole || i < rows ? i : rows - 1) * from_pitch);
  transpose(D(), block);
  for (std::size_t j = 0; j < size; ++j) {
    if (Whole || j < columns) right.store(block[j], to + static_cast<std::int64_t>(j) * to_pitch);
  }
}

template <class From, class To, class A = accumulator_of<From>>
HWY_INLINE void load_transposed_of(const LoadCall<From, To>& call) {
  constexpr int size = 16 / sizeof(A);
  const auto of = known(call);
  for (int i = 0; i < of.rows; i += size) {
    const int rows = of.rows - i < size ? of.rows - i : size;
    for (int j = 0; j < of.columns; j += size) {
      const int columns = of.columns - j < size ? of.columns - j : size;
      const auto* from = of.from + i * of.from_pitch + j;
      auto* to = of.to + j * of.to_pitch + i;
      for (int row = i + rows_ahead; row < i + rows_ahead + size && row < of.rows; ++row)
        hwy::Prefetch(of.from + row * of.from_pitch + j);
      if (rows == size && columns == size) {
        transpose_block<A, true>(size, size, from, of.from_pitch, to, of.to_pitch);
      } else {
        transpose_block<A, false>(static_cast<std::size_t>(rows), static_cast<std::size_t>(columns), from,
                                  of.from_pitch, to, of.to_pitch);
      }
    }
  }
}

// With one parameter: the macros below would take a comma for their own.

template <class Call>
void load_here(const Call& call) {
  load_of(call);
}

template <class Call>
void load_transposed_here(const Call& call) {
  load_transposed_of(call);
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class From, class To>
void load(const LoadCall<From, To>& call) {
  using Call = LoadCall<From, To>;
  HWY_EXPORT_T(Table, load_here<Call>);
  HWY_DYNAMIC_DISPATCH_T(Table)(call);
}

template <class From, class To>
void load_transposed(const LoadCall<From, To>& call) {
  using Call = LoadCall<From, To>;
  HWY_EXPORT_T(Table, load_transposed_here<Call>);
  HWY_DYNAMIC_DISPATCH_T(Table)(call);
}

#define KRAIT_INSTANTIATE(From, To)                   \
  template void load(const LoadCall<From, To>& call); \
  template void load_transposed(const LoadCall<From, To>& call);
KRAIT_INSTANTIATE(float, float)
KRAIT_INSTANTIATE(double, double)
KRAIT_INSTANTIATE(bfloat16, float)
KRAIT_INSTANTIATE(float16, float)
KRAIT_INSTANTIATE(float, bfloat16)
KRAIT_INSTANTIATE(float, float16)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
