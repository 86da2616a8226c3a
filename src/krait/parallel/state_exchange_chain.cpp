// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <algorithm>
#include <utility>

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

/// Step i takes block i % blocks of the heads through the rank's link i / blocks, then sends it on while the next one
/// arrives. So a message is under way on every link of the chain at a time, and all blocks share two buffers. Ranks
/// work through their links in the order of the chain; what they wait for never waits for them.
template <class V, class Exec>
class ChainForm final : public StateExchangeForm<V, Exec> {
 public:
  using typename StateExchangeForm<V, Exec>::Call;

  ChainForm(ChainRoute chain, const StateMapShape& extents)
      : StateExchangeForm<V, Exec>(std::move(chain), extents), block_(chain_block(extents, sizeof(V))) {
    blocks_ = (extents.heads + block_ - 1) / block_;
    const std::int64_t buffer = this->route().own.empty() ? 0 : extents.rows * block_ * extents.state_size;
    entering_ = space_.template add<V>(this->states(this->route().local_segments()));
    sent_ = space_.template add<V>(buffer);
    arrived_ = space_.template add<V>(buffer);
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return space_.bytes(); }
  [[nodiscard]] CommOperation operation() const override { return CommOperation::exclusive_scan; }
  [[nodiscard]] std::size_t entering() const override { return entering_; }
  [[nodiscard]] std::int64_t steps() const override { return this->route().local_segments() * blocks_; }

  [[nodiscard]] std::unique_ptr<Exchange> begin(const Call& call) const override { return exchange(call, -1); }

  [[nodiscard]] std::unique_ptr<Exchange> step(const Call& call, std::int64_t index) const override {
    pass(call, index);
    return exchange(call, index);
  }

 private:
  [[nodiscard]] std::int64_t link_of(std::int64_t step) const {
    return this->route().own[static_cast<std::size_t>(step / blocks_)];
  }
  [[nodiscard]] std::int64_t first_head(std::int64_t step) const { return step % blocks_ * block_; }
  [[nodiscard]] std::int64_t heads(std::int64_t step) const {
    return std::min(block_, this->shape().heads - first_head(step));
  }
  [[nodiscard]] std::int64_t numbers(std::int64_t step) const {
    return this->shape().rows * heads(step) * this->shape().state_size;
  }
  [[nodiscard]] bool arrives(std::int64_t step) const {
    const std::int64_t link = link_of(step);
    return link > 0 && this->route().sends_on(link - 1);
  }

  /// Sends what step `index` made, and receives what the next one needs.
  [[nodiscard]] std::unique_ptr<Exchange> exchange(const Call& call, std::int64_t index) const {
    const ChainRoute& route = this->route();
    const std::int64_t next = index + 1;
    Parts sends;
    Parts receives;
    const auto part = [this](int peer, std::int64_t step) {
      return Part{peer, 0, numbers(step) * static_cast<std::int64_t>(sizeof(V))};
    };
    if (index >= 0 && route.sends_on(link_of(index))) sends = {part(route[link_of(index) + 1].owner, index)};
    if (next < steps() && arrives(next)) receives = {part(route[link_of(next) - 1].owner, next)};
    return call.start(operation(), call.at(sent_), sends.empty() ? 0 : numbers(index), sends, call.at(arrived_),
                      receives.empty() ? 0 : numbers(next), receives);
  }

  void pass(const Call& call, std::int64_t index) const {
    const ChainRoute& route = this->route();
    const StateMapShape& shape = this->shape();
    const std::int64_t link = link_of(index);
    const std::int64_t local = route[link].local;
    PassThrough<V, Exec> pass{};
    pass.maps = call.maps + this->maps(local);
    pass.arrived = arrives(index) ? call.at(arrived_) : nullptr;
    pass.from_zero = link == 0;
    pass.entering = call.at(entering_) + this->states(local);
    pass.shape = shape;
    pass.first_head = first_head(index);
    pass.heads = heads(index);
    if (route.sends_on(link)) {
      pass.leaving = call.at(sent_);
      pass.leaving_row = pass.heads * shape.state_size;
    } else if (link + 1 < route.segments()) {
      pass.leaving = call.at(entering_) + this->states(route[link + 1].local) + pass.first_head * shape.state_size;
      pass.leaving_row = shape.state();
    }
    Kokkos::parallel_for(exchange_label<V, Exec>("pass"), strips(call.exec, shape.rows, pass.heads, shape.state_size),
                         pass);
  }

  std::int64_t block_;   ///< heads in a message
  std::int64_t blocks_;  ///< messages in which a state travels
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
