// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/scan_chunk.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/scan_chunk.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/chunk_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

/// Vectors of a block of the state: with its outputs and factors they have to fit the registers.
inline constexpr int block_vectors = HWY_TARGET <= HWY_AVX3 || !HWY_ARCH_X86 ? 4 : 2;
template <int Vectors>
inline constexpr int block_rows = Vectors <= 2 && block_vectors == 4 ? 8 : 4;

template <class A>
class ChunkOfHead {
 public:
  using D = hn::ScalableTag<A>;
  using V = hn::Vec<D>;

  HWY_INLINE explicit ChunkOfHead(const ScanChunk<A>& chunk) : k_(chunk), lanes_(static_cast<int>(hn::Lanes(D()))) {}

  HWY_INLINE void run() const {
    form_steps();
    form_factors();
    form_weights();
    scale_inputs();
    for (int column = 0; column < k_.channels;) {
      const int left = (k_.channels - column + lanes_ - 1) / lanes_;
      if constexpr (block_vectors == 4) {
        if (left >= 4) {
          column += advance<4>(column);
          continue;
        }
        if (left == 3) {
          column += advance<3>(column);
          continue;
        }
      }
      column += left >= 2 ? advance<2>(column) : advance<1>(column);
    }
  }

 private:
  HWY_INLINE V at(const A* from) const { return hn::LoadU(d_, from); }
  HWY_INLINE void put(V v, A* to) const { hn::StoreU(v, d_, to); }

  HWY_INLINE void form_steps() const {
    const V least = hn::Set(d_, k_.rule.dt_min);
    const V most = hn::Set(d_, k_.rule.dt_max);
    for (int j = 0; j < k_.tokens; j += lanes_) {
      put(clamp(d_, unclamped_step(d_, k_.rule, at(k_.steps + j)), least, most), k_.steps + j);
    }
  }

  /// The factors of each token from the beginning, and to the end of the chunk. See generic::cumulative_sum().
  HWY_INLINE void form_factors() const {
    A sum = A(0);
    A lost = A(0);
    for (int j = 0; j < k_.tokens; ++j) {
      const A term = k_.steps[j] * k_.log_rate;
      const A next = sum + term;
      // Both are negative or 0: the smaller is the larger in size.
      lost += sum <= term ? (sum - next) + term : (term - next) + sum;
      sum = next;
      k_.high[j] = sum;
      k_.low[j] = lost;
    }
    const V high = hn::Set(d_, sum);
    const V low = hn::Set(d_, lost);
    for (int j = 0; j < k_.tokens; j += lanes_) {
      const V h = at(k_.high + j);
      const V l = at(k_.low + j);
      put(decay(d_, hn::Add(h, l)), k_.enter + j);
      put(hn::Mul(decay(d_, hn::Add(hn::Sub(high, h), hn::Sub(low, l))), at(k_.steps + j)), k_.leave + j);
    }
  }

  /// weights(m, k) = scores(m, k) exp(sums_m - sums_k) delta_k, 0 above the diagonal up to the block's end.
  HWY_INLINE void form_weights() const {
    for (int m = 0; m < k_.tokens; ++m) {
      const V high = hn::Set(d_, k_.high[m]);
      const V low = hn::Set(d_, k_.low[m]);
      A* row = k_.weights + m * k_.token_row;
      for (int j = 0; j <= (m | 3); j += lanes_) {
        const V factor = decay(d_, hn::Add(hn::Sub(high, at(k_.high + j)), hn::Sub(low, at(k_.low + j))));
        const V w = hn::Mul(at(k_.scores + m * k_.token_row + j), hn::Mul(factor, at(k_.steps + j)));
        const auto below = hn::FirstN(d_, static_cast<std::size_t>(j > m ? 0 : m + 1 - j));
        put(hn::IfThenElseZero(below, w), row + j);
      }
    }
  }

  HWY_INLINE void scale_inputs() const {
    for (int j = 0; j < k_.tokens; ++j) {
      const V factor = hn::Set(d_, k_.leave[j]);
      for (int p = 0; p < k_.channels; p += lanes_) {
        put(hn::Mul(factor, at(k_.x + j * k_.row + p)), k_.scaled + j * k_.row + p);
      }
    }
  }

  template <int Vectors>
  HWY_INLINE int advance(int column) const {
    constexpr int rows = block_rows<Vectors>;
    int n = 0;
    for (; n + rows <= k_.d_state; n += rows) visit<Vectors, rows>(column, n);
    for (; n < k_.d_state; ++n) visit<Vectors, 1>(column, n);
    int m = 0;
    for (; m + 4 <= k_.tokens; m += 4) finish<Vectors, 4>(column, m);
    for (; m < k_.tokens; ++m) finish<Vectors, 1>(column, m);
    return Vectors * lanes_;
  }

  /// Takes from `Rows` rows of the state their part of C S, and advances them.
  template <int Vectors, int Rows>
  HWY_INLINE void visit(int column, int n) const {
    V s[Rows][Vectors];
    A* state = k_.state + n * k_.row + column;
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) s[r][v] = at(state + r * k_.row + v * lanes_);
    }
    A* y = k_.y + column;
    const A* c = k_.c + n;
    for (int m = 0; m < k_.tokens; ++m) {
      V sum[Vectors];
      for (int v = 0; v < Vectors; ++v) sum[v] = n == 0 ? hn::Zero(d_) : at(y + v * lanes_);
      for (int r = 0; r < Rows; ++r) {
        const V factor = hn::Set(d_, c[r]);
        for (int v = 0; v < Vectors; ++v) sum[v] = hn::MulAdd(factor, s[r][v], sum[v]);
      }
      for (int v = 0; v < Vectors; ++v) put(sum[v], y + v * lanes_);
      y += k_.row;
      c += k_.d_state;
    }
    const V through = hn::Set(d_, k_.enter[k_.tokens - 1]);
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) s[r][v] = hn::Mul(through, s[r][v]);
    }
    const A* x = k_.scaled + column;
    const A* b = k_.b + n * k_.b_row;
    for (int j = 0; j < k_.tokens; ++j) {
      V in[Vectors];
      for (int v = 0; v < Vectors; ++v) in[v] = at(x + v * lanes_);
      for (int r = 0; r < Rows; ++r) {
        const V factor = hn::Set(d_, b[r * k_.b_row + j]);
        for (int v = 0; v < Vectors; ++v) s[r][v] = hn::MulAdd(factor, in[v], s[r][v]);
      }
      x += k_.row;
    }
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) put(s[r][v], state + r * k_.row + v * lanes_);
    }
  }

  /// What the chunk adds to outputs m ... m + Tokens - 1.
  template <int Vectors, int Tokens>
  HWY_INLINE void finish(int column, int m) const {
    V sum[Tokens][Vectors];
    for (int i = 0; i < Tokens; ++i) {
      const V factor = hn::Set(d_, k_.enter[m + i]);
      const int at_token = (m + i) * k_.row + column;
      for (int v = 0; v < Vectors; ++v) sum[i][v] = hn::Mul(factor, at(k_.y + at_token + v * lanes_));
      if (k_.skip != nullptr) {
        for (int v = 0; v < Vectors; ++v)
          sum[i][v] = hn::MulAdd(at(k_.skip + column + v * lanes_), at(k_.x + at_token + v * lanes_), sum[i][v]);
      }
    }
    const A* x = k_.x + column;
    const A* w = k_.weights + m * k_.token_row;
    for (int j = 0; j < m + Tokens; ++j) {
      V in[Vectors];
      for (int v = 0; v < Vectors; ++v) in[v] = at(x + v * lanes_);
      for (int i = 0; i < Tokens; ++i) {
        const V factor = hn::Set(d_, w[i * k_.token_row + j]);
        for (int v = 0; v < Vectors; ++v) sum[i][v] = hn::MulAdd(factor, in[v], sum[i][v]);
      }
      x += k_.row;
    }
    for (int i = 0; i < Tokens; ++i) {
      for (int v = 0; v < Vectors; ++v) put(sum[i][v], k_.y + (m + i) * k_.row + column + v * lanes_);
    }
  }

  const ScanChunk<A>& k_;
  const D d_;
  const int lanes_;
};

template <class A>
void scan_chunk_here(const ScanChunk<A>& chunk) {
  ChunkOfHead<A>(chunk).run();
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class A>
void scan_chunk(const ScanChunk<A>& chunk) {
  HWY_EXPORT_T(Table, scan_chunk_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(chunk);
}

template void scan_chunk<float>(const ScanChunk<float>&);
template void scan_chunk<double>(const ScanChunk<double>&);

}  // namespace krait::tile::host
#endif
