// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "recurrence.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace krait::perf {
namespace {

/// Tokens whose steps are made together. Their B and C stay in the first-level cache beside the state.
constexpr int stretch = 16;
/// Bytes of the widest vector: what states are filled up to.
constexpr int widest = 64;
/// Tokens ahead of which x and out are asked for: they lie a row of all heads apart, too far for the hardware.
constexpr int ahead = 8;

#define KRAIT_ALWAYS_INLINE inline __attribute__((always_inline))

/// Vectors of `bytes` by the compiler's extension, and what a head is made of in them.
template <class V, int bytes>
struct Walk {
  using Integer = std::conditional_t<std::is_same_v<V, float>, std::int32_t, std::int64_t>;
  // NOLINTNEXTLINE(modernize-use-using): attributes of a template's alias are lost
  typedef V Vector __attribute__((vector_size(bytes), aligned(alignof(V)), may_alias));
  // NOLINTNEXTLINE(modernize-use-using)
  typedef Integer Bits __attribute__((vector_size(bytes), aligned(alignof(V)), may_alias));
  static constexpr int lanes = bytes / sizeof(V);
  static constexpr bool single = std::is_same_v<V, float>;

  /// v = exp(-v), for v >= 0; what would be denormal is the least normal number.
  static KRAIT_ALWAYS_INLINE void exp_of_minus(Vector& v) {
    constexpr V bound = single ? V(87) : V(708);
    constexpr V rounder = single ? V(0x1.8p23) : V(0x1.8p52);  // leaves the nearest integer in the low bits
    constexpr int mantissa = single ? 23 : 52;
    constexpr int terms = single ? 7 : 13;
    const Vector x = v < bound ? -v : Vector{} - bound;
    const Vector shifted = x * V(1.4426950408889634) + rounder;
    const Vector n = shifted - rounder;
    constexpr V ln2_high = single ? V(0x1.62ep-1) : V(0x1.62e42feep-1);  // the product with n is exact
    constexpr V ln2_low = single ? V(0x1.0bfbe8p-15) : V(0x1.a39ef35793c76p-33);
    const Vector r = (x - n * ln2_high) - n * ln2_low;
    Vector sum = Vector{} + V(1);
    for (int k = terms; k >= 1; --k) sum = sum * r * (V(1) / V(k)) + V(1);
    v = (Vector)((Bits)sum + ((Bits)shifted << mantissa));
  }

  /// v = log(1 + exp(v)) = max(v, 0) + 2 atanh(e / (2 + e)) with e = exp(-|v|)
  static KRAIT_ALWAYS_INLINE void softplus(Vector& v) {
    constexpr int terms = single ? 8 : 17;
    Vector e = v < V(0) ? -v : v;
    exp_of_minus(e);
    const Vector s = e / (e + V(2));
    const Vector square = s * s;
    Vector sum = Vector{};
    for (int k = terms; k >= 0; --k) sum = sum * square + V(1) / V(2 * k + 1);
    v = (v > V(0) ? v : Vector{}) + s * sum * V(2);
  }

  static KRAIT_ALWAYS_INLINE void steps(const Recurrence<V>& k, std::int64_t t, int count, V* deltas, V* decays) {
    for (int i = 0; i < stretch; ++i) deltas[i] = i < count ? k.dt[(t + i) * k.dt_pitch] : V(0);
    for (int i = 0; i < stretch; i += lanes) {
      Vector delta;
      std::memcpy(&delta, deltas + i, sizeof(delta));
      softplus(delta);
      std::memcpy(deltas + i, &delta, sizeof(delta));
      Vector decay = delta * -k.A;
      exp_of_minus(decay);
      std::memcpy(decays + i, &decay, sizeof(decay));
    }
  }

  /// `count` elements, the other lanes zeros.
  static KRAIT_ALWAYS_INLINE void load(Vector& v, const V* from, std::int64_t count) {
    if (count >= lanes) {
      std::memcpy(&v, from, sizeof(v));
      return;
    }
    v = Vector{};
    for (int i = 0; i < count; ++i) v[i] = from[i];
  }
  static KRAIT_ALWAYS_INLINE void store(const Vector& v, V* to, std::int64_t count) {
    if (count >= lanes) {
      std::memcpy(to, &v, sizeof(v));
      return;
    }
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }

  /// `tokens` tokens from t on, `vectors` vectors of channels from `channel` on, whose state is `state`.
  template <int tokens, int vectors>
  static KRAIT_ALWAYS_INLINE void advance(const Recurrence<V>& k, std::int64_t t, std::int64_t channel, V* state,
                                          const V* deltas, const V* decays) {
    Vector x[tokens][vectors];
    Vector y[tokens][vectors];
    V decay[tokens];
    for (int m = 0; m < tokens; ++m) {
      decay[m] = decays[m];
      const V* row = k.x + (t + m) * k.x_pitch + channel;
      for (int w = 0; w < vectors; ++w) {
        __builtin_prefetch(row + ahead * k.x_pitch + w * lanes, 0);
        __builtin_prefetch(k.out + (row - k.x) + ahead * k.x_pitch + w * lanes, 1);
        load(x[m][w], row + w * lanes, k.head_dim - channel - w * lanes);
        y[m][w] = Vector{};
        x[m][w] *= deltas[m];
      }
    }
    const V* B = k.B + t * k.group_pitch;
    const V* C = k.C + t * k.group_pitch;
    for (std::int64_t n = 0; n < k.d_state; ++n) {
      auto* s = reinterpret_cast<Vector*>(state) + n * vectors;
      V b[tokens];  // loaded once: to the compiler, a store to the state might change B and C
      V c[tokens];
      for (int m = 0; m < tokens; ++m) {
        b[m] = B[m * k.group_pitch + n];
        c[m] = C[m * k.group_pitch + n];
      }
      for (int w = 0; w < vectors; ++w) {
        Vector v = s[w];
        for (int m = 0; m < tokens; ++m) {
          v = v * decay[m] + x[m][w] * b[m];
          y[m][w] += v * c[m];
        }
        s[w] = v;
      }
    }
    for (int m = 0; m < tokens; ++m) {
      const std::int64_t place = (t + m) * k.x_pitch + channel;
      for (int w = 0; w < vectors; ++w) {
        const std::int64_t count = k.head_dim - channel - w * lanes;
        load(x[m][w], k.x + place + w * lanes, count);
        y[m][w] += x[m][w] * k.D;
        store(y[m][w], k.out + place + w * lanes, count);
      }
    }
  }

  template <int vectors>
  static KRAIT_ALWAYS_INLINE void block(const Recurrence<V>& k, std::int64_t t, int count, std::int64_t channel,
                                        V* state, const V* deltas, const V* decays) {
    int i = 0;
    for (; i + 2 <= count; i += 2) advance<2, vectors>(k, t + i, channel, state, deltas + i, decays + i);
    if (i < count) advance<1, vectors>(k, t + i, channel, state, deltas + i, decays + i);
  }

  static KRAIT_ALWAYS_INLINE void head(const Recurrence<V>& k) {
    std::fill_n(k.state, recurrence_state_size<V>(k.head_dim, k.d_state), V(0));
    for (std::int64_t t = 0; t < k.length; t += stretch) {
      const int count = static_cast<int>(std::min<std::int64_t>(stretch, k.length - t));
      V deltas[stretch];
      V decays[stretch];
      steps(k, t, count, deltas, decays);
      std::int64_t channel = 0;
      V* state = k.state;
      while (channel < k.head_dim) {
        const std::int64_t vectors = std::min<std::int64_t>(4, (k.head_dim - channel + lanes - 1) / lanes);
        if (vectors == 4)
          block<4>(k, t, count, channel, state, deltas, decays);
        else if (vectors == 3)
          block<3>(k, t, count, channel, state, deltas, decays);
        else if (vectors == 2)
          block<2>(k, t, count, channel, state, deltas, decays);
        else
          block<1>(k, t, count, channel, state, deltas, decays);
        channel += vectors * lanes;
        state += vectors * lanes * k.d_state;
      }
    }
  }
};

template <class V>
void portable(const Recurrence<V>& k) {
  Walk<V, 16>::head(k);
}

#if defined(__x86_64__) && defined(__GNUC__)
template <class V>
__attribute__((target("avx512f,avx512dq"))) void avx512(const Recurrence<V>& k) {
  Walk<V, 64>::head(k);
}
template <class V>
__attribute__((target("avx2,fma"))) void avx2(const Recurrence<V>& k) {
  Walk<V, 32>::head(k);
}

template <class V>
auto best() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return avx512<V>;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2<V>;
  return portable<V>;
}
#else
template <class V>
auto best() {
  return portable<V>;
}
#endif

}  // namespace

template <class V>
std::int64_t recurrence_state_size(std::int64_t head_dim, std::int64_t d_state) {
  constexpr std::int64_t lanes = widest / sizeof(V);
  return (head_dim + lanes - 1) / lanes * lanes * d_state;
}

template <class V>
void run_recurrence(const Recurrence<V>& head) {
  static const auto walk = best<V>();
  walk(head);
}

template std::int64_t recurrence_state_size<float>(std::int64_t, std::int64_t);
template std::int64_t recurrence_state_size<double>(std::int64_t, std::int64_t);
template void run_recurrence<float>(const Recurrence<float>&);
template void run_recurrence<double>(const Recurrence<double>&);

}  // namespace krait::perf
