// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <utility>

#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/core/workspace.hpp>
#include <krait/parallel/state_exchange_form.hpp>

namespace krait::impl {
namespace {

/// A link that the composition passes.
struct ComposeStop {
  std::int64_t gathered = 0;  ///< where its maps lie among those of all ranks
  std::int64_t own = -1;      ///< local segment, or -1
};

/// From link to link, S = alpha * S + E; this rank's links are told what enters them.
template <class V, class Exec>
struct ComposeMaps {
  const V* gathered;
  const ComposeStop* stops;
  std::int64_t count;
  StateMapShape shape;
  V* entering;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const StateStrip<Exec> strip(i, shape.heads, shape.state_size);
    const std::int64_t offset = strip.head * shape.state_size + strip.first;
    V state[StateStrip<Exec>::size] = {};
    for (std::int64_t s = 0; s < count; ++s) {
      const ComposeStop stop = stops[s];
      if (stop.own >= 0) {
        V* const to = entering + (stop.own * shape.rows + strip.block) * shape.state() + offset;
        for (int e = 0; e < strip.count; ++e) to[e] = state[e];
      }
      if (s + 1 == count) return;
      const V* const slot = gathered + (stop.gathered * shape.rows + strip.block) * shape.slot();
      const SegmentDecay<V> decay = stored_decay(slot[shape.state() + strip.head]);
      for (int e = 0; e < strip.count; ++e) state[e] = advance(decay, state[e], slot[offset + e]);
    }
  }
};

template <class V, class Exec>
class AllGatherForm final : public StateExchangeForm<V, Exec> {
 public:
  using typename StateExchangeForm<V, Exec>::Call;

  AllGatherForm(ChainRoute chain, const StateMapShape& extents)
      : StateExchangeForm<V, Exec>(std::move(chain), extents) {
    const ChainRoute& route = this->route();
    gathered_ = space_.template add<V>(this->maps(route.segments()));
    entering_ = space_.template add<V>(this->states(route.local_segments()));
    std::vector<std::int64_t> base(route.counts.size(), 0);
    for (std::size_t r = 1; r < base.size(); ++r) base[r] = base[r - 1] + route.counts[r - 1];
    std::vector<ComposeStop> stops;
    const std::int64_t last = route.own.empty() ? -1 : route.own.back();
    for (std::int64_t link = 0; link <= last; ++link) {
      const auto [owner, local] = route[link];
      stops.push_back({base[static_cast<std::size_t>(owner)] + local, owner == route.rank ? local : -1});
    }
    stops_ = upload_table<typename Exec::memory_space>("krait::state_exchange::stops", stops);
  }

  [[nodiscard]] std::size_t workspace_bytes() const override { return space_.bytes(); }
  [[nodiscard]] CommOperation operation() const override { return CommOperation::all_gather_v; }
  [[nodiscard]] std::size_t entering() const override { return entering_; }
  [[nodiscard]] std::int64_t steps() const override { return 1; }

  [[nodiscard]] std::unique_ptr<Exchange> begin(const Call& call) const override {
    const ChainRoute& route = this->route();
    const std::int64_t own = this->maps(route.local_segments());
    return call.start(operation(), call.maps, own,
                      same_block(*call.comm, 0, own * static_cast<std::int64_t>(sizeof(V))), call.at(gathered_),
                      this->maps(route.segments()),
                      blocks(route.counts, this->maps(1) * static_cast<std::int64_t>(sizeof(V))));
  }

  [[nodiscard]] std::unique_ptr<Exchange> step(const Call& call, std::int64_t /*index*/) const override {
    const StateMapShape& shape = this->shape();
    Kokkos::parallel_for(exchange_label<V, Exec>("compose"),
                         strips(call.exec, shape.rows, shape.heads, shape.state_size),
                         ComposeMaps<V, Exec>{call.at(gathered_), stops_.data(),
                                              static_cast<std::int64_t>(stops_.size()), shape, call.at(entering_)});
    return nullptr;
  }

 private:
  WorkspaceLayout space_;
  std::size_t gathered_;
  std::size_t entering_;
  Kokkos::View<const ComposeStop*, typename Exec::memory_space> stops_;
};

}  // namespace

template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_all_gather_form(ChainRoute route, const StateMapShape& shape) {
  return std::make_shared<AllGatherForm<V, Exec>>(std::move(route), shape);
}

#define KRAIT_INSTANTIATE_SCALAR(V, EXEC)                                                              \
  template std::shared_ptr<const StateExchangeForm<V, EXEC>> make_all_gather_form<V, EXEC>(ChainRoute, \
                                                                                           const StateMapShape&);
#define KRAIT_INSTANTIATE(EXEC)         \
  KRAIT_INSTANTIATE_SCALAR(float, EXEC) \
  KRAIT_INSTANTIATE_SCALAR(double, EXEC)
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
