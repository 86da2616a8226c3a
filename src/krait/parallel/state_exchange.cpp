// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/state_exchange.hpp>

#include <algorithm>
#include <utility>

#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/parallel/state_exchange_form.hpp>

namespace krait::impl {
namespace {

template <class V, class Exec>
std::shared_ptr<const StateExchangeForm<V, Exec>> make_form(StateExchange form, ChainRoute route,
                                                            const StateMapShape& shape) {
  if (form == StateExchange::all_gather) return make_all_gather_form<V, Exec>(std::move(route), shape);
  if (form == StateExchange::doubling) return make_doubling_form<V, Exec>(std::move(route), shape);
  return make_chain_form<V, Exec>(std::move(route), shape);
}

}  // namespace

void require_state_exchange(const char* function, StateExchange form, const std::vector<int>& owners,
                            const Place& place, const StateMapShape& shape) {
  KRAIT_REQUIRE(ConfigError, form != StateExchange::automatic, function,
                ": the form is automatic, expected all_gather, doubling or chain");
  for (std::size_t s = 0; s < owners.size(); ++s) {
    KRAIT_REQUIRE(ConfigError, 0 <= owners[s] && owners[s] < place.size, function, ": segment ", s, " belongs to rank ",
                  owners[s], ", expected 0 to ", place.size - 1);
  }
  KRAIT_REQUIRE(ConfigError, shape.chain_heads >= 0, function, ": chain_heads is ", shape.chain_heads,
                ", expected 0 or more");
  KRAIT_REQUIRE(ShapeError, shape.rows >= 0 && shape.heads >= 1 && shape.state_size >= 1, function, ": the maps have ",
                shape.rows, " rows of ", shape.heads, " heads of ", shape.state_size,
                " numbers, expected 0 or more rows of 1 or more heads of 1 or more numbers");
}

ChainRoute::ChainRoute(const std::vector<int>& owners, const Place& place, ChainDirection direction)
    : rank(place.rank), links(owners.size()), counts(static_cast<std::size_t>(place.size), 0) {
  for (std::size_t s = 0; s < owners.size(); ++s) {
    links[s] = {owners[s], counts[static_cast<std::size_t>(owners[s])]++};
  }
  if (direction == ChainDirection::descending) std::reverse(links.begin(), links.end());
  for (std::int64_t link = 0; link < segments(); ++link) {
    if ((*this)[link].owner == rank) own.push_back(link);
  }
}

template <class V, class Exec>
StateExchangePlan<V, Exec>::StateExchangePlan(StateExchange form, const std::vector<int>& owners, const Place& place,
                                              ChainDirection direction, const StateMapShape& shape)
    : place_(place) {
  require_state_exchange("krait::StateExchangePlan", form, owners, place, shape);
  form_ = make_form<V, Exec>(form, ChainRoute(owners, place, direction), shape);
}

template <class V, class Exec>
std::int64_t StateExchangePlan<V, Exec>::local_segments() const {
  return form_->route().local_segments();
}

template <class V, class Exec>
std::size_t StateExchangePlan<V, Exec>::workspace_bytes() const {
  return form_->workspace_bytes();
}

template <class V, class Exec>
StateArrival<V, Exec> StateExchangePlan<V, Exec>::post(const Exec& exec, const Communicator& comm,
                                                       const Tensor<const V**, Exec>& maps,
                                                       const Tensor<std::byte*, Exec>& workspace) const {
  constexpr const char* function = "krait::StateExchangePlan::post";
  const Place place = comm.place();
  KRAIT_REQUIRE(LayoutError, place.rank == place_.rank && place.size == place_.size, function, ": this is rank ",
                place.rank, " of ", place.size, ", expected rank ", place_.rank, " of ", place_.size,
                ", for which the plan was made");
  const StateMapShape& shape = form_->shape();
  const std::vector<std::int64_t> expected = {local_segments() * shape.rows, shape.slot()};
  KRAIT_REQUIRE(ShapeError, extents(maps) == expected, function, ": maps is ", extents(maps), ", expected ", expected);
  KRAIT_REQUIRE(ShapeError, maps.span_is_contiguous() && (maps.size() == 0 || maps.stride(1) == 1), function,
                ": maps has strides (", maps.stride(0), ", ", maps.stride(1), "), expected contiguous slots");
  KRAIT_REQUIRE(CapacityError, workspace.size() >= workspace_bytes(), function, ": workspace has ", workspace.size(),
                " bytes, expected at least ", workspace_bytes());

  const std::shared_ptr<CommState>& state = comm.state();
  const CommRegion region(*state, form_->operation(), reach_of_spaces<typename Exec::memory_space>);
  krait::impl::begin(*state, form_->operation());
  const StateExchangeCall<V, Exec> call{exec, state, state->next_tag(), maps.data(), workspace.data()};
  std::unique_ptr<Exchange> first = form_->begin(call);
  std::vector<RequestState::Stage> steps;
  for (std::int64_t i = 0; i < form_->steps(); ++i) {
    steps.emplace_back([form = form_, call, i] { return form->step(call, i); });
  }
  return {make_tensor<const V**, Exec, 2>(call.at(form_->entering()), {expected[0], shape.state()}),
          Request(std::make_unique<RequestState>(state, std::move(first), std::move(steps), StageMemory::caller))};
}

#define KRAIT_INSTANTIATE(EXEC)                  \
  template class StateExchangePlan<float, EXEC>; \
  template class StateExchangePlan<double, EXEC>;
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
