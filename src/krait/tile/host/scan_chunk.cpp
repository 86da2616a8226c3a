// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/coming_rows-inl.h>
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
/// Tokens whose outputs are finished together.
inline constexpr int block_tokens = 4;

template <class A>
class ChunkOfHeads {
 public:
  using D = hn::ScalableTag<A>;
  using V = hn::Vec<D>;

  HWY_INLINE explicit ChunkOfHeads(const ScanHeads<A>& all)
      : all_(all), k_(all.first), lanes_(static_cast<int>(hn::Lanes(D()))) {}

  HWY_INLINE void run() const {
    // Whole vectors of a head reach into the channels of the next, whose turn is later.
    for (int h = 0; h < all_.heads; ++h) {
      const ScanChunk<A> head = all_.head(h);
      form_steps(head);
      form_factors(head);
      scale_inputs(head);
      const V through = hn::Set(d_, head.enter[k_.tokens - 1]);
      for (int p = 0; p < k_.channels; p += lanes_) put(through, all_.through + h * k_.channels + p);
    }
    for_columns(all_.heads * k_.channels, Advance{*this});
    for (int h = 0; h < all_.heads; ++h) {
      const ScanChunk<A> head = all_.head(h);
      form_weights(head);
      for_columns(k_.channels, Finish{*this, head});
    }
  }

 private:
  HWY_INLINE V at(const A* from) const { return hn::LoadU(d_, from); }
  HWY_INLINE void put(V v, A* to) const { hn::StoreU(v, d_, to); }

  struct Advance {
    const ChunkOfHeads& chunk;
    template <int Vectors>
    HWY_INLINE void run(int column) const {
      chunk.advance<Vectors>(column);
    }
  };
  struct Finish {
    const ChunkOfHeads& chunk;
    const ScanChunk<A>& head;
    template <int Vectors>
    HWY_INLINE void run(int column) const {
      chunk.finish_columns<Vectors>(head, column);
    }
  };

  /// Columns [0, channels) in blocks of as many vectors as the registers hold, without single vectors where there can
  /// be three.
  template <class Work>
  HWY_INLINE void for_columns(int channels, const Work& work) const {
    for (int column = 0; column < channels;) {
      const int left = (channels - column + lanes_ - 1) / lanes_;
      int vectors = left < 2 ? 1 : 2;
      if constexpr (block_vectors == 4) {
        if (left >= 3) vectors = left == 4 || left == 7 || left == 8 || left > 9 ? 4 : 3;
        if (vectors == 4) work.template run<4>(column);
        if (vectors == 3) work.template run<3>(column);
      }
      if (vectors == 2) work.template run<2>(column);
      if (vectors == 1) work.template run<1>(column);
      column += vectors * lanes_;
    }
  }

  HWY_INLINE void form_steps(const ScanChunk<A>& k) const {
    const V least = hn::Set(d_, k.rule.dt_min);
    const V most = hn::Set(d_, k.rule.dt_max);
    for (int j = 0; j < k.tokens; j += lanes_) {
      put(clamp(d_, unclamped_step(d_, k.rule, at(k.steps + j)), least, most), k.steps + j);
    }
  }

  /// The factors of each token from the beginning, and to the end of the chunk. See generic::cumulative_sum().
  HWY_INLINE void form_factors(const ScanChunk<A>& k) const {
    A sum = A(0);
    A lost = A(0);
    for (int j = 0; j < k.tokens; ++j) {
      const A term = k.steps[j] * k.log_rate;
      const A next = sum + term;
      // Both are negative or 0: the smaller is the larger in size.
      lost += sum <= term ? (sum - next) + term : (term - next) + sum;
      sum = next;
      k.high[j] = sum;
      k.low[j] = lost;
    }
    const V high = hn::Set(d_, sum);
    const V low = hn::Set(d_, lost);
    for (int j = 0; j < k.tokens; j += lanes_) {
      const V h = at(k.high + j);
      const V l = at(k.low + j);
      put(decay(d_, hn::Add(h, l)), k.enter + j);
      put(hn::Mul(decay(d_, hn::Add(hn::Sub(high, h), hn::Sub(low, l))), at(k.steps + j)), k.leave + j);
    }
  }

  /// weights(m, k) = scores(m, k) exp(sums_m - sums_k) delta_k, 0 above the diagonal up to the block's end. Down a
  /// column the decays of the tokens are multiplied: one exponential per token in place of one per pair. They come to
  /// lie where the sums were.
  HWY_INLINE void form_weights(const ScanChunk<A>& k) const {
    const V rate = hn::Set(d_, k.log_rate);
    for (int j = 0; j < k.tokens; j += lanes_) put(decay(d_, hn::Mul(rate, at(k.steps + j))), k.high + j);
    for (int j = 0; j < k.tokens; j += lanes_) {
      const auto place = [&](int m) { return m * k.token_row + j; };
      for (int m = j / block_tokens * block_tokens; m < j; ++m) put(hn::Zero(d_), k.weights + place(m));
      V factor = at(k.steps + j);
      for (int m = j; m < k.tokens; ++m) {
        const V more = hn::Set(d_, k.high[m]);
        if (m - j >= lanes_) {
          factor = hn::Mul(factor, more);
          put(hn::Mul(factor, at(k.scores + place(m))), k.weights + place(m));
          continue;
        }
        factor = hn::MaskedMulOr(factor, hn::FirstN(d_, static_cast<std::size_t>(m - j)), factor, more);
        const auto below = hn::FirstN(d_, static_cast<std::size_t>(m - j) + 1);
        put(hn::IfThenElseZero(below, hn::Mul(factor, at(k.scores + place(m)))), k.weights + place(m));
      }
    }
  }

  HWY_INLINE void scale_inputs(const ScanChunk<A>& k) const {
    for (int j = 0; j < k.tokens; ++j) {
      const V factor = hn::Set(d_, k.leave[j]);
      for (int p = 0; p < k.channels; p += lanes_) {
        put(hn::Mul(factor, at(k.x + j * k.row + p)), k.scaled + j * k.row + p);
      }
    }
  }

  template <int Vectors>
  HWY_INLINE void advance(int column) const {
    constexpr int rows = block_rows<Vectors>;
    int n = 0;
    for (; n + rows <= k_.d_state; n += rows) visit<Vectors, rows>(column, n);
    if (n + 4 <= k_.d_state) n += visit<Vectors, 4>(column, n);
    if (n + 2 <= k_.d_state) n += visit<Vectors, 2>(column, n);
    if (n < k_.d_state) visit<Vectors, 1>(column, n);
  }

  template <int Vectors>
  HWY_INLINE void finish_columns(const ScanChunk<A>& k, int column) const {
    int m = 0;
    for (; m + block_tokens <= k.tokens; m += block_tokens) finish<Vectors, block_tokens>(k, column, m);
    for (; m < k.tokens; ++m) finish<Vectors, 1>(k, column, m);
  }

  /// Takes from `Rows` rows of the state their part of C S, and advances them.
  template <int Vectors, int Rows>
  HWY_INLINE int visit(int column, int n) const {
    const int seen = column * k_.d_state + n * Vectors * lanes_;
    ask_for(all_.coming, seen, seen + Rows * Vectors * lanes_, all_.heads * k_.channels * k_.d_state);
    V s[Rows][Vectors];
    A* state = k_.state + n * k_.state_row + column;
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) s[r][v] = at(state + r * k_.state_row + v * lanes_);
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
      c += k_.c_row;
    }
    for (int v = 0; v < Vectors; ++v) {
      const V through = at(all_.through + column + v * lanes_);
      for (int r = 0; r < Rows; ++r) s[r][v] = hn::Mul(through, s[r][v]);
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
      for (int v = 0; v < Vectors; ++v) put(s[r][v], state + r * k_.state_row + v * lanes_);
    }
    return Rows;
  }

  /// What the chunk adds to outputs m ... m + Tokens - 1 of a head.
  template <int Vectors, int Tokens>
  HWY_INLINE void finish(const ScanChunk<A>& k, int column, int m) const {
    V sum[Tokens][Vectors];
    for (int i = 0; i < Tokens; ++i) {
      const V factor = hn::Set(d_, k.enter[m + i]);
      const int at_token = (m + i) * k.row + column;
      for (int v = 0; v < Vectors; ++v) sum[i][v] = hn::Mul(factor, at(k.y + at_token + v * lanes_));
      if (k.skip != nullptr) {
        for (int v = 0; v < Vectors; ++v)
          sum[i][v] = hn::MulAdd(at(k.skip + column + v * lanes_), at(k.x + at_token + v * lanes_), sum[i][v]);
      }
    }
    const A* x = k.x + column;
    const A* w = k.weights + m * k.token_row;
    for (int j = 0; j < m + Tokens; ++j) {
      V in[Vectors];
      for (int v = 0; v < Vectors; ++v) in[v] = at(x + v * lanes_);
      for (int i = 0; i < Tokens; ++i) {
        const V factor = hn::Set(d_, w[i * k.token_row + j]);
        for (int v = 0; v < Vectors; ++v) sum[i][v] = hn::MulAdd(factor, in[v], sum[i][v]);
      }
      x += k.row;
    }
    // The next head's channels are not to be touched.
    const int last = k.channels - column - (Vectors - 1) * lanes_;
    const auto own = hn::FirstN(d_, static_cast<std::size_t>(last));
    for (int i = 0; i < Tokens; ++i) {
      A* const y = k.y + (m + i) * k.row + column;
      for (int v = 0; v < Vectors - 1; ++v) put(sum[i][v], y + v * lanes_);
      hn::BlendedStore(sum[i][Vectors - 1], own, d_, y + (Vectors - 1) * lanes_);
    }
  }

  const ScanHeads<A>& all_;
  const ScanChunk<A>& k_;
  const D d_;
  const int lanes_;
};

template <class A>
void scan_heads_here(const ScanHeads<A>& chunk) {
  ChunkOfHeads<A>(chunk).run();
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class A>
void scan_heads(const ScanHeads<A>& chunk) {
  HWY_EXPORT_T(Table, scan_heads_here<A>);
  HWY_DYNAMIC_DISPATCH_T(Table)(chunk);
}

template void scan_heads<float>(const ScanHeads<float>&);
template void scan_heads<double>(const ScanHeads<double>&);

}  // namespace krait::tile::host
#endif
