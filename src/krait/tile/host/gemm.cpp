// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/coming_rows-inl.h>
#include <krait/tile/host/gemm.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/gemm.cpp>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The largest block of sums that the registers hold, with a row of b and a broadcast element of a: 24 vectors of 32,
/// or 12 of 16. A narrow block is higher, because a sum waits some cycles for its next term.
inline constexpr int most_vectors = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3 ? 2 : 4;
template <int Vectors>
inline constexpr int most_rows = Vectors == 1 ? 10 : 6;

/// Sums of Rows x Vectors vectors. Of the last vector of a row only the first `count` elements exist, if not Whole.
template <class V, int Rows, int Vectors, bool Whole>
struct Block {
  using D = hn::ScalableTag<V>;
  using Vec = hn::Vec<D>;

  D d;
  std::size_t count;
  Vec sums[Rows][Vectors];

  HWY_INLINE explicit Block(std::size_t elements) : count(elements) { clear_from<0>(); }

  /// The sums over the inner index.
  HWY_INLINE void add(int inner, const V* a, std::int64_t a_row, std::int64_t a_column, const V* b,
                      std::int64_t b_row) {
    for (int l = 0; l < inner; ++l) {
      Vec right[Vectors];
      load(b, right);
      add_from<0>(a, a_row, right);
      a += a_column;
      b += b_row;
    }
  }

  /// c = sums + beta * c
  HWY_INLINE void store(V beta, V* c, std::int64_t c_row) const {
    if (beta == V(0)) {
      store_from<0, false>(hn::Zero(d), c, c_row);
    } else {
      store_from<0, true>(hn::Set(d, beta), c, c_row);
    }
  }

 private:
  // By recursion over the rows and not in a loop, so that the compiler knows every index of an array of registers.

  template <int i>
  HWY_INLINE void clear_from() {
    for (int v = 0; v < Vectors; ++v) sums[i][v] = hn::Zero(d);
    if constexpr (i + 1 < Rows) clear_from<i + 1>();
  }

  template <int i>
  HWY_INLINE void add_from(const V* a, std::int64_t a_row, const Vec (&right)[Vectors]) {
    const Vec left = hn::Set(d, a[i * a_row]);
    for (int v = 0; v < Vectors; ++v) sums[i][v] = hn::MulAdd(left, right[v], sums[i][v]);
    if constexpr (i + 1 < Rows) add_from<i + 1>(a, a_row, right);
  }

  template <int i, bool Add>
  HWY_INLINE void store_from(Vec beta, V* c, std::int64_t c_row) const {
    Vec result[Vectors];
    if constexpr (Add) load(c, result);
    for (int v = 0; v < Vectors; ++v) result[v] = Add ? hn::MulAdd(beta, result[v], sums[i][v]) : sums[i][v];
    const std::size_t width = hn::Lanes(d);
    for (int v = 0; v + 1 < Vectors; ++v) hn::StoreU(result[v], d, c + v * width);
    V* last = c + (Vectors - 1) * width;
    if constexpr (Whole) {
      hn::StoreU(result[Vectors - 1], d, last);
    } else {
      hn::StoreN(result[Vectors - 1], d, last, count);
    }
    if constexpr (i + 1 < Rows) store_from<i + 1, Add>(beta, c + c_row, c_row);
  }

  HWY_INLINE void load(const V* row, Vec (&to)[Vectors]) const {
    const std::size_t width = hn::Lanes(d);
    for (int v = 0; v + 1 < Vectors; ++v) to[v] = hn::LoadU(d, row + v * width);
    const V* last = row + (Vectors - 1) * width;
    if constexpr (Whole) {
      to[Vectors - 1] = hn::LoadU(d, last);
    } else {
      to[Vectors - 1] = hn::LoadN(d, last, count);
    }
  }
};

/// The parts of [0, size), as few as are needed, and none longer than another by more than 1.
struct Parts {
  int size, count;
  HWY_INLINE Parts(int all, int most) : size(all), count((all + most - 1) / most) {}
  [[nodiscard]] HWY_INLINE int length(int part) const { return size / count + (part < size % count ? 1 : 0); }
};

/// The block of `rows` <= Rows rows from some column and row on.
template <int Rows, int Vectors, bool Whole, class V>
HWY_INLINE void block_of(const GemmCall<V>& call, int rows, int column, int row, std::size_t count) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return block_of<Rows - 1, Vectors, Whole>(call, rows, column, row, count);
  }
  Block<V, Rows, Vectors, Whole> block(count);
  block.add(call.inner, call.a + row * call.a_row, call.a_row, call.a_column, call.b + column, call.b_row);
  block.store(call.beta, call.c + row * call.c_row + column, call.c_row);
}

/// A strip of columns, as wide as a block.
template <int Vectors, bool Whole, class V>
void strip(const GemmCall<V>& call, int column, std::size_t count) {
  const Parts parts(call.rows, most_rows<Vectors>);
  constexpr hn::ScalableTag<V> d;
  const int columns = Vectors * static_cast<int>(hn::Lanes(d));
  int row = 0;
  for (int part = 0; part < parts.count; ++part) {
    const int rows = parts.length(part);
    const int before = column * call.rows + row * columns;
    ask_for(call.coming, before, before + rows * columns, call.rows * call.columns);
    block_of<most_rows<Vectors>, Vectors, Whole>(call, rows, column, row, count);
    row += rows;
  }
}

/// The strip of `vectors` <= Vectors vectors.
template <int Vectors, class V>
HWY_INLINE void strip_of(const GemmCall<V>& call, int vectors, int column, std::size_t count, bool whole) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return strip_of<Vectors - 1>(call, vectors, column, count, whole);
  }
  if (whole) return strip<Vectors, true>(call, column, count);
  strip<Vectors, false>(call, column, count);
}

template <class V>
void gemm_here(const GemmCall<V>& call) {
  if (call.rows <= 0 || call.columns <= 0) return;
  const auto width = static_cast<int>(hn::Lanes(hn::ScalableTag<V>()));
  const Parts parts((call.columns + width - 1) / width, most_vectors);
  int column = 0;
  for (int part = 0; part < parts.count; ++part) {
    const int vectors = parts.length(part);
    const int last = call.columns - column - (vectors - 1) * width;  // elements of the last vector
    strip_of<most_vectors>(call, vectors, column, static_cast<std::size_t>(last), last >= width);
    column += vectors * width;
  }
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class V>
void gemm(const GemmCall<V>& call) {
  HWY_EXPORT_T(Table, gemm_here<V>);
  HWY_DYNAMIC_DISPATCH_T(Table)(call);
}

template void gemm<float>(const GemmCall<float>&);
template void gemm<double>(const GemmCall<double>&);

}  // namespace krait::tile::host
#endif
