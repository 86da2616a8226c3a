// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <utility>
#include <vector>

#include <krait/core/instantiate.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/state_exchange_form.hpp>

namespace krait::impl {

std::int64_t chain_block(const StateMapShape& shape, std::int64_t element_bytes) {
  constexpr std::int64_t message_bytes = std::int64_t{256} * 1024;
  const std::int64_t head_bytes = std::max<std::int64_t>(element_bytes * shape.rows * shape.state_size, 1);
  const std::int64_t heads = shape.chain_heads > 0 ? shape.chain_heads : message_bytes / head_bytes;
  return std::clamp<std::int64_t>(heads, 1, shape.heads);
}

namespace {

/// Some heads of a state on their way through a segment.
template <class V, class Exec>
struct PassThrough {
  const V* maps;     ///< of the segment
  const V* arrived;  ///< (rows, heads of the block, P, N); null: `entering` is already there, or is zero
  bool from_zero;
  V* entering;               ///< of the segment
  V* leaving;                ///< null: nothing follows
  std::int64_t leaving_row;  ///< numbers from one row of `leaving` to the next
  StateMapShape shape;
  std::int64_t first_head;
  std::int64_t heads;  ///< of the block

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const StateStrip<Exec> strip(i, heads, shape.state_size);
    const std::int64_t head = first_head + strip.head;
    const std::int64_t in_block = strip.head * shape.state_size + strip.first;
    const std::int64_t in_row = head * shape.state_size + strip.first;
    V* const state = entering + strip.block * shape.state() + in_row;
    if (arrived != nullptr) {
      const V* const from = arrived + strip.block * heads * shape.state_size + in_block;
      for (int e = 0; e < strip.count; ++e) state[e] = from[e];
    } else if (from_zero) {
      for (int e = 0; e < strip.count; ++e) state[e] = V(0);
    }
    if (leaving == nullptr) return;
    const V* const slot = maps + strip.block * shape.slot();
    const SegmentDecay<V> decay = stored_decay(slot[shape.state() + head]);
    V* const to = leaving + strip.block * leaving_row + in_block;
    for (int e = 0; e < strip.count; ++e) to[e] = advance(decay, state[e], slot[in_row + e]);
  }
};

/// At time t block b of the heads goes through link t - b, and on to the next link's rank, which takes it up at time
/// t + 1. A rank does what it has to do at a time, then exchanges the messages of that time, all at once. So no rank
/// waits for one that has an earlier message to wait for, also where a chain comes back to a rank and MPI completes no
/// message before it is received; and a message is under way on every link at a time.
template <class V, class Exec>
class ChainForm final : public StateExchangeForm<V, Exec> {
 public:
  using typename StateExchangeForm<V, Exec>::Call;

  ChainForm(ChainRoute chain, const StateMapShape& extents)
      : StateExchangeForm<V, Exec>(std::move(chain), extents), block_(chain_block(extents, sizeof(V))) {
    blocks_ = (extents.heads + block_ - 1) / block_;
    const std::vector<std::int64_t>& own = this->route().own;
    for (std::size_t k = 0; k < own.size(); ++k) {
      const std::int64_t from = times_.empty() ? own[k] - 1 : std::max(own[k] - 1, times_.back() + 1);
      for (std::int64_t time = from; time < own[k] + blocks_; ++time) times_.push_back(time);
      const auto behind = std::upper_bound(own.begin(), own.end(), own[k] + blocks_);
      buffers_ = std::max(buffers_, (behind - own.begin()) - static_cast<std::int64_t>(k));
    }
    buffer_ = extents.rows * block_ * extents.state_size;
    entering_ = space_.template add<V>(this->states(this->route().local_segments()));
    sent_ = space_.template add<V>(buffers_ * buffer_);
    arrived_ = space_.template add<V>(buffers_ * buffer_);
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return space_.bytes(); }
  [[nodiscard]] CommOperation operation() const override { return CommOperation::exclusive_scan; }
  [[nodiscard]] std::size_t entering() const override { return entering_; }
  [[nodiscard]] std::int64_t steps() const override {
    return std::max<std::int64_t>(static_cast<std::int64_t>(times_.size()) - 1, 0);
  }

  /// At a rank's first time there is only something to receive.
  [[nodiscard]] std::unique_ptr<Exchange> begin(const Call& call) const override {
    return exchange(call, times_.empty() ? 0 : times_.front());
  }

  [[nodiscard]] std::unique_ptr<Exchange> step(const Call& call, std::int64_t index) const override {
    const std::int64_t time = times_[static_cast<std::size_t>(index) + 1];
    for_links(time, [&](std::int64_t k, std::int64_t block) { pass(call, k, block); });
    return exchange(call, time);
  }

 private:
  /// work(k, block) for the rank's links, the k-th of which has this block at that time.
  template <class Work>
  void for_links(std::int64_t time, const Work& work) const {
    const std::vector<std::int64_t>& own = this->route().own;
    const auto first = std::upper_bound(own.begin(), own.end(), time - blocks_);
    for (auto link = first; link != own.end() && *link <= time; ++link) work(link - own.begin(), time - *link);
  }
  [[nodiscard]] std::int64_t link(std::int64_t k) const { return this->route().own[static_cast<std::size_t>(k)]; }
  [[nodiscard]] std::int64_t heads(std::int64_t block) const {
    return std::min(block_, this->shape().heads - block * block_);
  }
  [[nodiscard]] bool arrives(std::int64_t link) const { return link > 0 && this->route().sends_on(link - 1); }
  /// Links whose blocks are under way at the same time have buffers of their own.
  [[nodiscard]] std::int64_t buffer_of(std::int64_t k) const { return k % buffers_ * buffer_; }

  /// The messages of a time: what was made at it, and what the rank needs at the next. Both ends list those that they
  /// share by ascending links. An Exchange wants parts by ascending ranks.
  [[nodiscard]] std::unique_ptr<Exchange> exchange(const Call& call, std::int64_t time) const {
    const ChainRoute& route = this->route();
    Parts sends;
    Parts receives;
    const auto part = [this](int peer, std::int64_t k, std::int64_t block) {
      constexpr auto size = static_cast<std::int64_t>(sizeof(V));
      return Part{peer, buffer_of(k) * size, this->shape().rows * heads(block) * this->shape().state_size * size};
    };
    for_links(time, [&](std::int64_t k, std::int64_t block) {
      if (route.sends_on(link(k))) sends.push_back(part(route[link(k) + 1].owner, k, block));
    });
    for_links(time + 1, [&](std::int64_t k, std::int64_t block) {
      if (arrives(link(k))) receives.push_back(part(route[link(k) - 1].owner, k, block));
    });
    const auto by_rank = [](const Part& a, const Part& b) { return a.peer < b.peer; };
    std::stable_sort(sends.begin(), sends.end(), by_rank);
    std::stable_sort(receives.begin(), receives.end(), by_rank);
    const std::int64_t numbers = buffers_ * buffer_;
    const std::int64_t sent = sends.empty() ? 0 : numbers;
    const std::int64_t received = receives.empty() ? 0 : numbers;
    return call.start(operation(), call.at(sent_), sent, std::move(sends), call.at(arrived_), received,
                      std::move(receives));
  }

  void pass(const Call& call, std::int64_t k, std::int64_t block) const {
    const ChainRoute& route = this->route();
    const StateMapShape& shape = this->shape();
    const std::int64_t link = this->link(k);
    const std::int64_t local = route[link].local;
    PassThrough<V, Exec> pass{};
    pass.maps = call.maps + this->maps(local);
    pass.arrived = arrives(link) ? call.at(arrived_) + buffer_of(k) : nullptr;
    pass.from_zero = link == 0;
    pass.entering = call.at(entering_) + this->states(local);
    pass.shape = shape;
    pass.first_head = block * block_;
    pass.heads = heads(block);
    if (route.sends_on(link)) {
      pass.leaving = call.at(sent_) + buffer_of(k);
      pass.leaving_row = pass.heads * shape.state_size;
    } else if (link + 1 < route.segments()) {
      pass.leaving = call.at(entering_) + this->states(route[link + 1].local) + pass.first_head * shape.state_size;
      pass.leaving_row = shape.state();
    }
    Kokkos::parallel_for(exchange_label<V, Exec>("pass"), strips(call.exec, shape.rows, pass.heads, shape.state_size),
                         pass);
  }

  std::int64_t block_;               ///< heads in a message
  std::int64_t blocks_;              ///< messages in which a state travels
  std::vector<std::int64_t> times_;  ///< at which this rank receives, works or sends, ascending
  std::int64_t buffers_ = 0;         ///< most links of the rank that are under way at a time
  std::int64_t buffer_ = 0;          ///< numbers of one
  WorkspaceLayout space_;
  std::size_t entering_;
  std::size_t sent_;
  std::size_t arrived_;
};

}  // namespace

template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_chain_form(ChainRoute route, const StateMapShape& shape) {
  return std::make_shared<ChainForm<V, Exec>>(std::move(route), shape);
}

#define KRAIT_INSTANTIATE_SCALAR(V, EXEC) \
  template std::shared_ptr<const StateExchangeForm<V, EXEC>> make_chain_form<V, EXEC>(ChainRoute, const StateMapShape&);
#define KRAIT_INSTANTIATE(EXEC)         \
  KRAIT_INSTANTIATE_SCALAR(float, EXEC) \
  KRAIT_INSTANTIATE_SCALAR(double, EXEC)
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
