// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/tile/host/conv_rows.hpp>

// clang-format off
#include <krait/tile/host/targets.hpp>
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <krait/tile/host/conv_rows.cpp>
#include <hwy/foreach_target.h>
#include <krait/tile/host/vector_math-inl.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace krait::tile::host::HWY_NAMESPACE {

/// `Tokens` successive tokens of a vector of channels. With a number of taps that the compiler knows, every array here
/// is a set of registers; Taps == 0 stands for any number.
template <class Lanes, int Taps, int Tokens>
struct Window {
  using V = typename Lanes::V;
  using A = typename Lanes::A;
  static constexpr int room = Taps == 0 ? max_conv_taps : Taps;

  const Lanes& lanes;
  const ConvStrip<A>& strip;
  V weights[room];
  V bias;
  V inputs[room - 1 + Tokens];  // of the tokens before, then of these

  HWY_INLINE Window(const Lanes& here, const ConvStrip<A>& all, const A* history) : lanes(here), strip(all) {
    for (int w = 0; w < taps(); ++w) weights[w] = lanes.load(strip.weight + w * strip.pitch);
    bias = lanes.load(strip.bias);
    load_before(history, inputs);
  }

  [[nodiscard]] HWY_INLINE int taps() const { return Taps == 0 ? strip.taps : Taps; }

  HWY_INLINE void load_before(const A* from, V* rows) const {
    for (int w = 0; w < taps() - 1; ++w) rows[w] = lanes.load(from + w * strip.pitch);
  }
  /// The rows before the token that follows these.
  HWY_INLINE void store_before(const V* rows, A* to) const {
    for (int w = 0; w < taps() - 1; ++w) lanes.store(rows[Tokens + w], to + w * strip.pitch);
  }

  /// bias + sum_w weight_w inputs[t + w], w ascending
  [[nodiscard]] HWY_INLINE V sum(int t) const {
    V result = bias;
    for (int w = 0; w < taps(); ++w) result = hn::MulAdd(weights[w], inputs[t + w], result);
    return result;
  }
};

/// Tokens whose activations are taken side by side.
template <int Tokens>
inline constexpr int activations_at_once = Tokens < 4 ? Tokens : 4;

template <int Taps, int Tokens, class T, class A>
struct ConvRows {
  ConvStrip<A> strip;
  ConvTokens<T, A> tokens;
  T* const* out;
  int first;
  bool past_cache;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    Window<Lanes, Taps, Tokens> window(lanes, strip, tokens.history);
    groups_from<0>(window);
    window.store_before(window.inputs, tokens.history);
  }

 private:
  /// By recursion and not in a loop, so that the compiler knows every index however long the body is.
  template <int t, class Window>
  HWY_INLINE void groups_from(Window& window) const {
    constexpr int group = activations_at_once<Tokens>;
    const auto& lanes = window.lanes;
    typename Window::V sums[group];
    for (int i = 0; i < group; ++i) {
      if (first + t + i + Tokens < tokens.count + tokens.next) lanes.prefetch(tokens.x[first + t + i + Tokens]);
      window.inputs[window.taps() - 1 + t + i] = lanes.load(tokens.x[first + t + i]);
      sums[i] = window.sum(t + i);
    }
    if (strip.silu) silus(lanes.d, sums);
    for (int i = 0; i < group; ++i) lanes.store(sums[i], out[first + t + i], past_cache);
    if constexpr (t + group < Tokens) groups_from<t + group>(window);
  }
};

template <int Taps, int Tokens, class T, class A>
struct ConvGradientRows {
  ConvStrip<A> strip;
  ConvGradientTokens<T, A> tokens;
  int first;
  bool past_cache;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    using W = Window<Lanes, Taps, Tokens>;
    W window(lanes, strip, tokens.history);
    Gradients<typename W::V, W::room, Tokens> to;
    window.load_before(tokens.q, to.q);
    const bool counted = tokens.dweight != nullptr;
    to.dbias = counted ? lanes.load(tokens.dbias) : hn::Zero(lanes.d);
    for (int w = 0; w < window.taps(); ++w)
      to.dweight[w] = counted ? lanes.load(tokens.dweight + w * strip.pitch) : hn::Zero(lanes.d);
    groups_from<0>(window, to);
    window.store_before(window.inputs, tokens.history);
    window.store_before(to.q, tokens.q);
    if (!counted) return;
    lanes.store(to.dbias, tokens.dbias);
    for (int w = 0; w < window.taps(); ++w) lanes.store(to.dweight[w], tokens.dweight + w * strip.pitch);
  }

 private:
  template <class V, int Room, int Count>
  struct Gradients {
    V q[Room - 1 + Count];  // of the tokens before, then of these
    V dweight[Room];
    V dbias;
  };

  static constexpr int group = activations_at_once<Tokens>;

  template <int t, class Window, class Gradients>
  HWY_INLINE void groups_from(Window& window, Gradients& to) const {
    inputs_from<t, t + group>(window);
    typename Window::V slopes[group];
    if (strip.silu) {
      typename Window::V sums[group];
      for (int i = 0; i < group; ++i) sums[i] = window.sum(t + i);
      sigmoids(window.lanes.d, sums, slopes);
      for (int i = 0; i < group; ++i) slopes[i] = silu_derivative(window.lanes.d, sums[i], slopes[i]);
    }
    tokens_from<t, t>(window, to, slopes);
    if constexpr (t + group < Tokens) groups_from<t + group>(window, to);
  }

  template <int t, int end, class Window>
  HWY_INLINE void inputs_from(Window& window) const {
    if (first + t + Tokens < tokens.count + tokens.next) {
      window.lanes.prefetch(tokens.x[first + t + Tokens]);
      window.lanes.prefetch(tokens.dout[first + t + Tokens]);
    }
    window.inputs[window.taps() - 1 + t] = window.lanes.load(tokens.x[first + t]);
    if constexpr (t + 1 < end) inputs_from<t + 1, end>(window);
  }

  template <int begin, int t, class Window, class Gradients>
  HWY_INLINE void tokens_from(Window& window, Gradients& to, const typename Window::V* slopes) const {
    const auto& lanes = window.lanes;
    const int newest = window.taps() - 1 + t;
    auto q = lanes.load(tokens.dout[first + t]);
    if (strip.silu) q = hn::Mul(q, slopes[t - begin]);
    to.q[newest] = q;
    to.dbias = hn::Add(to.dbias, q);
    for (int w = 0; w < window.taps(); ++w) to.dweight[w] = hn::MulAdd(q, window.inputs[t + w], to.dweight[w]);
    if (tokens.dx != nullptr) {
      auto gradient = hn::Mul(window.weights[0], q);
      for (int i = 1; i < window.taps(); ++i) gradient = hn::MulAdd(window.weights[i], to.q[newest - i], gradient);
      lanes.store(gradient, tokens.dx[first + t], past_cache);
    }
    if constexpr (t + 1 < begin + group) tokens_from<begin, t + 1>(window, to, slopes);
  }
};

template <class T, class A>
struct ConvEdgeRow {
  const ConvStrip<A>& strip;
  const A* q;
  int first_tap;
  const A* incoming;
  T* dx;

  template <class Lanes>
  HWY_INLINE void run(const Lanes& lanes) const {
    const int before = strip.taps - 1;
    auto gradient = incoming == nullptr ? hn::Zero(lanes.d) : lanes.load(incoming);
    for (int i = 0; i < before; ++i) {
      const auto weight = lanes.load(strip.weight + (first_tap + i) * strip.pitch);
      gradient = hn::MulAdd(weight, lanes.load(q + (before - 1 - i) * strip.pitch), gradient);
    }
    lanes.store(gradient, dx);
  }
};

/// Tokens whose rows are taken side by side. What a vector of channels carries from token to token then stays in
/// registers that long.
template <int Taps>
inline constexpr int tokens_at_once = Taps == 0 ? 1 : 8;

/// Whether `count` rows go past the cache.
template <class A, class T>
HWY_INLINE bool all_stream(const ConvStrip<A>& strip, T* const* rows, int count) {
  bool all = strip.past_cache && rows != nullptr;
  for (int t = 0; all && t < count; ++t) all = streams<A>(rows[t]);
  return all;
}

template <int Taps, class T, class A>
HWY_INLINE void conv_rows_of(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out) {
  constexpr int block = tokens_at_once<Taps>;
  const bool past_cache = all_stream(strip, out, tokens.count);
  int t = 0;
  for (; t + block <= tokens.count; t += block)
    for_lanes<A>(strip.channels, ConvRows<Taps, block, T, A>{strip, tokens, out, t, past_cache});
  for (; t < tokens.count; ++t)
    for_lanes<A>(strip.channels, ConvRows<Taps, 1, T, A>{strip, tokens, out, t, past_cache});
  if (past_cache) hwy::FlushStream();
}

template <int Taps, class T, class A>
HWY_INLINE void conv_gradient_rows_of(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens) {
  constexpr int block = tokens_at_once<Taps>;
  const bool past_cache = all_stream(strip, tokens.dx, tokens.count);
  int t = 0;
  for (; t + block <= tokens.count; t += block)
    for_lanes<A>(strip.channels, ConvGradientRows<Taps, block, T, A>{strip, tokens, t, past_cache});
  for (; t < tokens.count; ++t)
    for_lanes<A>(strip.channels, ConvGradientRows<Taps, 1, T, A>{strip, tokens, t, past_cache});
  if (past_cache) hwy::FlushStream();
}

template <class T, class A = accumulator_of<T>>
void conv_rows_here(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out) {
  switch (strip.taps) {
    case 2:
      return conv_rows_of<2>(strip, tokens, out);
    case 3:
      return conv_rows_of<3>(strip, tokens, out);
    case 4:
      return conv_rows_of<4>(strip, tokens, out);
    default:
      return conv_rows_of<0>(strip, tokens, out);
  }
}

template <class T, class A = accumulator_of<T>>
void conv_gradient_rows_here(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens) {
  switch (strip.taps) {
    case 2:
      return conv_gradient_rows_of<2>(strip, tokens);
    case 3:
      return conv_gradient_rows_of<3>(strip, tokens);
    case 4:
      return conv_gradient_rows_of<4>(strip, tokens);
    default:
      return conv_gradient_rows_of<0>(strip, tokens);
  }
}

template <class T, class A = accumulator_of<T>>
void conv_edge_row_here(const ConvStrip<A>& strip, const A* q, int first_tap, const A* incoming, T* dx) {
  for_lanes<A>(strip.channels, ConvEdgeRow<T, A>{strip, q, first_tap, incoming, dx});
}

}  // namespace krait::tile::host::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace krait::tile::host {

template <class T, class A>
void conv_rows(const ConvStrip<A>& strip, const ConvTokens<T, A>& tokens, T* const* out) {
  HWY_EXPORT_T(Table, conv_rows_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(strip, tokens, out);
}

template <class T, class A>
void conv_gradient_rows(const ConvStrip<A>& strip, const ConvGradientTokens<T, A>& tokens) {
  HWY_EXPORT_T(Table, conv_gradient_rows_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(strip, tokens);
}

template <class T, class A>
void conv_edge_row(const ConvStrip<A>& strip, const A* q, int first_tap, const A* incoming, T* dx) {
  HWY_EXPORT_T(Table, conv_edge_row_here<T>);
  HWY_DYNAMIC_DISPATCH_T(Table)(strip, q, first_tap, incoming, dx);
}

#define KRAIT_INSTANTIATE(T, A)                                                                 \
  template void conv_rows<T, A>(const ConvStrip<A>&, const ConvTokens<T, A>&, T* const*);       \
  template void conv_gradient_rows<T, A>(const ConvStrip<A>&, const ConvGradientTokens<T, A>&); \
  template void conv_edge_row<T, A>(const ConvStrip<A>&, const A*, int, const A*, T*);
KRAIT_INSTANTIATE(float, float)
KRAIT_INSTANTIATE(double, double)
KRAIT_INSTANTIATE(bfloat16, float)
KRAIT_INSTANTIATE(float16, float)
#undef KRAIT_INSTANTIATE

}  // namespace krait::tile::host
#endif
