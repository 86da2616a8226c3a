// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <utility>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/state_exchange_form.hpp>

namespace krait::impl {

// Before the step of distance d a link j knows the map X of the links j - d + 1 ... j - 1, those before the chain's
// beginning left out. It hands on the map of j - d + 1 ... j, which is its own after X, and link j + d extends its X by
// that. After the last step X covers everything before the link.
DoublingStep doubling_step(const ChainRoute& route, std::int64_t distance) {
  DoublingStep step;
  const std::size_t ranks = route.counts.size();
  for (std::size_t peer = 0; peer < ranks; ++peer) {
    const std::size_t sends = step.sends.size();
    const std::size_t receives = step.receives.size();
    for (const std::int64_t link : route.own) {
      const auto is_peer = [&](std::int64_t other) {
        return 0 <= other && other < route.segments() && route[other].owner == static_cast<int>(peer);
      };
      if (is_peer(link + distance)) step.sends.push_back(link);
      if (is_peer(link - distance)) step.receives.push_back(link);
    }
    step.send_counts.push_back(static_cast<std::int64_t>(step.sends.size() - sends));
    step.receive_counts.push_back(static_cast<std::int64_t>(step.receives.size() - receives));
  }
  return step;
}

namespace {

/// The states and factors of the maps X, apart, so that the states can be handed out.
template <class V>
struct Windows {
  V* states;      ///< (local segments, rows, H, P, N)
  V* log_alphas;  ///< (local segments, rows, H)
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t state_size;

  [[nodiscard]] KOKKOS_FUNCTION V* state(std::int64_t slot, std::int64_t head) const {
    return states + (slot * heads + head) * state_size;
  }
  [[nodiscard]] KOKKOS_FUNCTION V& log_alpha(std::int64_t slot, std::int64_t head) const {
    return log_alphas[slot * heads + head];
  }
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t slot_size() const { return heads * state_size + heads; }
  /// Slot of row `block % rows` of the segment listed at block / rows.
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t slot(const std::int64_t* segments, std::int64_t block) const {
    return segments[block / rows] * rows + block % rows;
  }
};

template <class V>
KOKKOS_INLINE_FUNCTION V stored_log(const SegmentDecay<V>& decay) {
  return decay.carries ? decay.log_alpha : -Kokkos::Experimental::infinity_v<V>;
}

/// What goes out: the own map after X.
template <class V, class Exec>
struct PackWindows {
  Windows<V> windows;
  const V* maps;
  const std::int64_t* segments;
  V* packed;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const StateStrip<Exec> strip(i, windows.heads, windows.state_size);
    const std::int64_t slot = windows.slot(segments, strip.block);
    const std::int64_t offset = strip.head * windows.state_size + strip.first;
    const std::int64_t factor = windows.heads * windows.state_size + strip.head;
    const V* const map = maps + slot * windows.slot_size();
    V* const to = packed + strip.block * windows.slot_size();
    const V* const before = windows.state(slot, strip.head) + strip.first;
    const SegmentDecay<V> own = stored_decay(map[factor]);
    for (int e = 0; e < strip.count; ++e) to[offset + e] = advance(own, before[e], map[offset + e]);
    if (strip.first == 0) to[factor] = stored_log(combine(stored_decay(windows.log_alpha(slot, strip.head)), own));
  }
};

/// X after what came in. The factors change in a second kernel, since all numbers of a head's state need them as they
/// were.
template <class V, class Exec>
struct ExtendStates {
  Windows<V> windows;
  const V* arrived;
  const std::int64_t* segments;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const StateStrip<Exec> strip(i, windows.heads, windows.state_size);
    const std::int64_t slot = windows.slot(segments, strip.block);
    const V* const from = arrived + strip.block * windows.slot_size() + strip.head * windows.state_size + strip.first;
    V* const state = windows.state(slot, strip.head) + strip.first;
    const SegmentDecay<V> decay = stored_decay(windows.log_alpha(slot, strip.head));
    for (int e = 0; e < strip.count; ++e) state[e] = advance(decay, from[e], state[e]);
  }
};

template <class V>
struct ExtendFactors {
  Windows<V> windows;
  const V* arrived;
  const std::int64_t* segments;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t head = i % windows.heads;
    const std::int64_t block = i / windows.heads;
    const V from = arrived[block * windows.slot_size() + windows.heads * windows.state_size + head];
    V& log_alpha = windows.log_alpha(windows.slot(segments, block), head);
    log_alpha = stored_log(combine(stored_decay(from), stored_decay(log_alpha)));
  }
};

template <class V, class Exec>
class DoublingForm final : public StateExchangeForm<V, Exec> {
 public:
  using typename StateExchangeForm<V, Exec>::Call;

  DoublingForm(ChainRoute chain, const StateMapShape& extents) : StateExchangeForm<V, Exec>(std::move(chain), extents) {
    const ChainRoute& route = this->route();
    const std::int64_t local = route.local_segments();
    windows_ = space_.template add<V>(this->maps(local));
    sent_ = space_.template add<V>(this->maps(local));
    arrived_ = space_.template add<V>(this->maps(local));
    for (std::int64_t distance = 1; distance < route.segments(); distance *= 2) {
      const DoublingStep step = doubling_step(route, distance);
      steps_.push_back({table(step.sends), table(step.receives), step.send_counts, step.receive_counts});
    }
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return space_.bytes(); }
  [[nodiscard]] CommOperation operation() const override { return CommOperation::exclusive_scan; }
  [[nodiscard]] std::size_t entering() const override { return windows_; }
  [[nodiscard]] std::int64_t steps() const override { return static_cast<std::int64_t>(steps_.size()); }

  [[nodiscard]] std::unique_ptr<Exchange> begin(const Call& call) const override {
    // The map of no segment: E = 0 and log alpha = 0.
    const std::int64_t numbers = this->maps(this->route().local_segments());
    Kokkos::deep_copy(call.exec, make_tensor<V*, Exec, 1>(call.at(windows_), {numbers}), V(0));
    if (steps_.empty()) return call.start(operation(), call.maps, 0, {}, call.at(arrived_), 0, {});
    return send(call, steps_.front());
  }

  [[nodiscard]] std::unique_ptr<Exchange> step(const Call& call, std::int64_t index) const override {
    const auto number = static_cast<std::size_t>(index);
    extend(call, steps_[number]);
    return number + 1 < steps_.size() ? send(call, steps_[number + 1]) : nullptr;
  }

 private:
  using Table = Kokkos::View<const std::int64_t*, typename Exec::memory_space>;
  struct Step {
    Table sends;  ///< local segments
    Table receives;
    std::vector<std::int64_t> send_counts;
    std::vector<std::int64_t> receive_counts;
  };

  [[nodiscard]] Table table(std::vector<std::int64_t> links) const {
    for (std::int64_t& link : links) link = this->route()[link].local;
    return upload_table<typename Exec::memory_space>("krait::state_exchange::windows", links);
  }

  [[nodiscard]] Windows<V> windows_of(const Call& call) const {
    const StateMapShape& shape = this->shape();
    V* const states = call.at(windows_);
    return {states, states + this->states(this->route().local_segments()), shape.rows, shape.heads, shape.state_size};
  }

  [[nodiscard]] std::unique_ptr<Exchange> send(const Call& call, const Step& step) const {
    const StateMapShape& shape = this->shape();
    const auto sends = static_cast<std::int64_t>(step.sends.size());
    const auto receives = static_cast<std::int64_t>(step.receives.size());
    if (sends > 0)
      Kokkos::parallel_for(exchange_label<V, Exec>("pack"),
                           strips(call.exec, sends * shape.rows, shape.heads, shape.state_size),
                           PackWindows<V, Exec>{windows_of(call), call.maps, step.sends.data(), call.at(sent_)});
    const std::int64_t bytes = this->maps(1) * static_cast<std::int64_t>(sizeof(V));
    return call.start(operation(), call.at(sent_), this->maps(sends), blocks(step.send_counts, bytes),
                      call.at(arrived_), this->maps(receives), blocks(step.receive_counts, bytes));
  }

  void extend(const Call& call, const Step& step) const {
    const StateMapShape& shape = this->shape();
    const std::int64_t blocks = static_cast<std::int64_t>(step.receives.size()) * shape.rows;
    if (blocks == 0) return;
    const Windows<V> windows = windows_of(call);
    Kokkos::parallel_for(exchange_label<V, Exec>("extend"), strips(call.exec, blocks, shape.heads, shape.state_size),
                         ExtendStates<V, Exec>{windows, call.at(arrived_), step.receives.data()});
    Kokkos::parallel_for(exchange_label<V, Exec>("extend_factors"),
                         Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(call.exec, 0, blocks * shape.heads),
                         ExtendFactors<V>{windows, call.at(arrived_), step.receives.data()});
  }

  WorkspaceLayout space_;
  std::size_t windows_;  ///< the states of all, then the factors of all
  std::size_t sent_;
  std::size_t arrived_;
  std::vector<Step> steps_;
};

}  // namespace

template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_doubling_form(ChainRoute route, const StateMapShape& shape) {
  return std::make_shared<DoublingForm<V, Exec>>(std::move(route), shape);
}

#define KRAIT_INSTANTIATE_SCALAR(V, EXEC)                                                            \
  template std::shared_ptr<const StateExchangeForm<V, EXEC>> make_doubling_form<V, EXEC>(ChainRoute, \
                                                                                         const StateMapShape&);
#define KRAIT_INSTANTIATE(EXEC)         \
  KRAIT_INSTANTIATE_SCALAR(float, EXEC) \
  KRAIT_INSTANTIATE_SCALAR(double, EXEC)
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
