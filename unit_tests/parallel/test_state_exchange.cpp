// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// All forms of the state exchange against a serial composition in double, over random chains; what travels.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <bit>
#include <cmath>
#include <krait/comm/communicator.hpp>
#include <krait/core/error.hpp>
#include <krait/core/memory_meter.hpp>
#include <krait/core/random.hpp>
#include <krait/parallel/state_exchange.hpp>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <support/callback_recorder.hpp>
#include <support/ranks.hpp>
#include <vector>

namespace krait::test {
namespace {

using impl::ChainDirection;
using impl::state_exchange_counts;
using impl::StateArrival;
using impl::StateExchangePlan;
using impl::StateMapShape;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

using Exec = Kokkos::DefaultExecutionSpace;
using Memory = Exec::memory_space;
using Owners = std::vector<int>;

constexpr StateExchange forms[] = {StateExchange::all_gather, StateExchange::doubling, StateExchange::chain};
constexpr ChainDirection directions[] = {ChainDirection::ascending, ChainDirection::descending};

Communicator world() { return Communicator::world(Exec()); }

Owners contiguous(int ranks) {
  Owners owners(static_cast<std::size_t>(ranks));
  std::iota(owners.begin(), owners.end(), 0);
  return owners;
}

Owners zigzag(int ranks) {
  Owners owners = contiguous(ranks);
  owners.insert(owners.end(), owners.rbegin(), owners.rend());
  return owners;
}

/// Equal on all ranks; some ranks may own nothing, neighbours may belong together.
Owners random_owners(int ranks, std::uint64_t seed) {
  const std::uint64_t first = mix64(seed);
  const std::uint64_t segments = first % 24;
  const std::uint64_t busy = 1 + mix64(first) % static_cast<std::uint64_t>(ranks);
  Owners owners;
  for (std::uint64_t s = 0; s < segments; ++s) {
    owners.push_back(static_cast<int>((mix64(seed * 1000 + s) % busy + first) % static_cast<std::uint64_t>(ranks)));
  }
  return owners;
}

std::vector<Owners> chains(int ranks) {
  std::vector<Owners> result = {contiguous(ranks), zigzag(ranks), {}, {ranks - 1}};
  for (std::uint64_t seed = 1; seed <= 12; ++seed) result.push_back(random_owners(ranks, seed));
  return result;
}

/// Maps of all segments, equal on all ranks, and what enters each of them.
template <class V>
struct Problem {
  Owners owners;
  StateMapShape shape;
  std::uint64_t seed;

  [[nodiscard]] std::size_t numbers() const { return static_cast<std::size_t>(shape.rows * shape.slot()); }
  /// The slots of a segment. Now and then nothing is carried over, and now and then a number is none, which must not
  /// reach what nothing is carried over to.
  [[nodiscard]] std::vector<V> maps(std::uint64_t segment) const {
    std::vector<V> result(numbers());
    for (std::size_t i = 0; i < result.size(); ++i) {
      const bool is_log = static_cast<std::int64_t>(i) % shape.slot() >= shape.state();
      const double number = uniform(2 * seed, segment, i);
      const double kind = uniform(2 * seed + 1, segment, i);
      if (is_log) {
        result[i] = kind < 0.2    ? -std::numeric_limits<V>::infinity()
                    : kind < 0.22 ? std::numeric_limits<V>::quiet_NaN()
                                  : static_cast<V>(-2 * number);
      } else {
        result[i] = kind < 0.01 ? std::numeric_limits<V>::quiet_NaN() : static_cast<V>(2 * number - 1);
      }
    }
    return result;
  }

  struct Entering {
    std::vector<double> states;      ///< (rows, heads, state_size)
    std::vector<double> magnitudes;  ///< the same with absolute values: what rounding errors are relative to
  };
  /// For each segment in order of tokens.
  [[nodiscard]] std::vector<Entering> serial(ChainDirection direction) const {
    std::vector<Entering> result(owners.size());
    const auto states = static_cast<std::size_t>(shape.rows * shape.state());
    Entering now{std::vector<double>(states, 0), std::vector<double>(states, 0)};
    for (std::size_t j = 0; j < owners.size(); ++j) {
      const std::size_t s = direction == ChainDirection::ascending ? j : owners.size() - 1 - j;
      result[s] = now;
      const std::vector<V> map = maps(s);
      for (std::size_t i = 0; i < states; ++i) {
        const std::size_t row = i / static_cast<std::size_t>(shape.state());
        const std::size_t in_row = i % static_cast<std::size_t>(shape.state());
        const std::size_t slot = row * static_cast<std::size_t>(shape.slot());
        const double log_alpha =
            map[slot + static_cast<std::size_t>(shape.state()) + in_row / static_cast<std::size_t>(shape.state_size)];
        const double own = map[slot + in_row];
        const bool carries = !std::isinf(log_alpha);
        now.states[i] = carries ? std::exp(log_alpha) * now.states[i] + own : own;
        now.magnitudes[i] = (carries ? std::exp(log_alpha) * now.magnitudes[i] : 0) + std::abs(own);
      }
    }
    return result;
  }
};

/// The plan, maps and workspace of this rank. The workspace is full of what is not a number.
template <class V>
struct Share {
  StateExchangePlan<V, Exec> plan;
  Kokkos::View<V**, Kokkos::LayoutRight, Memory> maps;
  Kokkos::View<std::byte*, Memory> workspace;

  Share(const Problem<V>& problem, const Communicator& comm, StateExchange form, ChainDirection direction)
      : plan(form, problem.owners, comm.place(), direction, problem.shape),
        maps("krait::test::maps", static_cast<std::size_t>(plan.local_segments() * problem.shape.rows),
             static_cast<std::size_t>(problem.shape.slot())),
        workspace("krait::test::workspace", plan.workspace_bytes()) {
    const auto host = Kokkos::create_mirror_view(maps);
    V* to = host.data();
    for (std::size_t s = 0; s < problem.owners.size(); ++s) {
      if (problem.owners[s] != comm.rank()) continue;
      const std::vector<V> map = problem.maps(s);
      to = std::copy(map.begin(), map.end(), to);
    }
    Kokkos::deep_copy(maps, host);
    Kokkos::deep_copy(workspace, std::byte{0xff});
  }

  [[nodiscard]] StateArrival<V, Exec> post(const Communicator& comm) const {
    return plan.post(Exec(), comm, maps, workspace);
  }
};

template <class V>
std::vector<V> download(const Tensor<const V**, Exec>& view) {
  Kokkos::View<V**, Kokkos::LayoutRight, Memory> copy("krait::test::copy", view.extent(0), view.extent(1));
  Kokkos::deep_copy(copy, view);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), copy);
  return std::vector<V>(host.data(), host.data() + host.size());
}

/// A composition of M maps rounds a few times for each of them.
template <class V>
void expect_serial(const Problem<V>& problem, int rank, ChainDirection direction, const std::vector<V>& given,
                   const std::string& what) {
  const auto expected = problem.serial(direction);
  const double unit = 8 * static_cast<double>(problem.owners.size()) * std::numeric_limits<V>::epsilon();
  std::size_t at = 0;
  std::size_t wrong = 0;
  for (std::size_t s = 0; s < problem.owners.size(); ++s) {
    if (problem.owners[s] != rank) continue;
    for (std::size_t i = 0; i < expected[s].states.size(); ++i, ++at) {
      const double wanted = expected[s].states[i];
      const double got = at < given.size() ? given[at] : 1e30;
      const bool same =
          std::isnan(wanted) ? std::isnan(got) : std::abs(got - wanted) <= unit * expected[s].magnitudes[i];
      if (!same && ++wrong < 4) {
        ADD_FAILURE() << what << ": segment " << s << ", number " << i << " is " << got << ", expected " << wanted;
      }
    }
  }
  EXPECT_EQ(wrong, 0U) << what;
  EXPECT_EQ(at, given.size()) << what;
}

std::string describe(const Owners& owners, StateExchange form, ChainDirection direction) {
  std::string text =
      std::string(name_of(form)) + (direction == ChainDirection::ascending ? " up" : " down") + ", owners";
  for (const int owner : owners) text += ' ' + std::to_string(owner);
  return text;
}

template <class V>
void exchange_and_compare(const Problem<V>& problem, const Communicator& comm, StateExchange form,
                          ChainDirection direction) {
  const Share<V> share(problem, comm, form, direction);
  StateArrival<V, Exec> arrival = share.post(comm);
  arrival.request.wait();
  expect_serial(problem, comm.rank(), direction, download<V>(arrival.entering),
                describe(problem.owners, form, direction));
}

template <class V>
class StateExchangeOf : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(StateExchangeOf, Scalars);

TYPED_TEST(StateExchangeOf, EveryChainEqualsTheSerialComposition) {
  const auto comm = world();
  std::uint64_t seed = 7;
  for (const Owners& owners : chains(comm.size())) {
    // Heads do not divide by the block of a chain; a head's state is longer than a strip.
    const Problem<TypeParam> problem{owners, {2, 5, 131, 2}, ++seed};
    for (const StateExchange form : forms) {
      for (const ChainDirection direction : directions) exchange_and_compare(problem, comm, form, direction);
    }
  }
}

TYPED_TEST(StateExchangeOf, ShapesAtTheEdges) {
  const auto comm = world();
  const StateMapShape shapes[] = {{1, 1, 1, 0}, {3, 4, 6, 1}, {1, 4, 6, 4}, {1, 4, 6, 100}, {0, 4, 6, 0}};
  for (const StateMapShape& shape : shapes) {
    const Problem<TypeParam> problem{zigzag(comm.size()), shape, 3};
    for (const StateExchange form : forms) {
      for (const ChainDirection direction : directions) exchange_and_compare(problem, comm, form, direction);
    }
  }
}

// MPI completes a message of this size only when it is received: ranks that had to send first would wait for each other
// where a chain comes back to a rank.
TEST(StateExchange, MessagesThatAreNotSentAhead) {
  const auto comm = world();
  const StateMapShape shape{1, 9, 64 * 128, 1};
  for (const Owners& owners : {zigzag(comm.size()), random_owners(comm.size(), 11), contiguous(comm.size())}) {
    const Problem<float> problem{owners, shape, 4};
    for (const StateExchange form : forms) {
      for (const ChainDirection direction : directions) exchange_and_compare(problem, comm, form, direction);
    }
  }
}

TEST(StateExchange, ThroughHostBuffers) {
  auto comm = world();
  comm.force_host_buffer(true);
  const Problem<float> problem{zigzag(comm.size()), {2, 5, 6, 2}, 3};
  for (const StateExchange form : forms) exchange_and_compare(problem, comm, form, ChainDirection::ascending);
}

TEST(StateExchange, SeveralUnderWayMayBeWaitedForInAnyOrder) {
  const auto comm = world();
  std::vector<Problem<float>> problems;
  std::vector<Share<float>> shares;
  std::vector<StateArrival<float, Exec>> arrivals;
  for (std::size_t i = 0; i < 6; ++i) {
    problems.push_back({random_owners(comm.size(), 20 + i), {2, 5, 6, 2}, i});
    shares.emplace_back(problems[i], comm, forms[i % 3], directions[i / 3]);
    arrivals.push_back(shares[i].post(comm));
  }
  for (std::size_t i = 0; i < 6; ++i) {
    const std::size_t n = comm.rank() % 2 == 0 ? i : 5 - i;
    arrivals[n].request.wait();
    expect_serial(problems[n], comm.rank(), directions[n / 3], download<float>(arrivals[n].entering), "exchange");
  }
}

TEST(StateExchange, CountersAreWhatTheCountsSay) {
  auto comm = world();
  const StateMapShape shape{2, 5, 6, 2};
  for (const Owners& owners : chains(comm.size())) {
    const Problem<float> problem{owners, shape, 5};
    for (const StateExchange form : forms) {
      for (const ChainDirection direction : directions) {
        const Share<float> share(problem, comm, form, direction);
        comm.reset_counters();
        share.post(comm).request.wait();
        const OperationCounters counts = state_exchange_counts(form, owners, comm.place(), direction, shape, 4);
        EXPECT_EQ(comm.counters().total(), counts) << describe(owners, form, direction);
        const auto operation =
            form == StateExchange::all_gather ? CommOperation::all_gather_v : CommOperation::exclusive_scan;
        EXPECT_EQ(comm.counters()[operation], counts) << describe(owners, form, direction);
      }
    }
  }
}

// By hand, for four ranks.
TEST(StateExchange, CountsOfKnownChains) {
  const StateMapShape shape{2, 5, 6, 2};
  const std::int64_t map = std::int64_t{4} * 2 * (5 * 6 + 5);
  const std::int64_t state = std::int64_t{4} * 2 * 5 * 6;
  const auto counts = [&](StateExchange form, const Owners& owners, int rank,
                          ChainDirection direction = ChainDirection::ascending) {
    return state_exchange_counts(form, owners, Place{rank, 4}, direction, shape, 4);
  };
  const Owners row = contiguous(4);
  EXPECT_EQ(counts(StateExchange::all_gather, row, 1), (OperationCounters{1, 3, 3 * map, 3, 3 * map}));
  EXPECT_EQ(counts(StateExchange::all_gather, zigzag(4), 1), (OperationCounters{1, 3, 6 * map, 3, 6 * map}));
  EXPECT_EQ(counts(StateExchange::all_gather, {2, 2, 2}, 0), (OperationCounters{1, 0, 0, 1, 3 * map}));
  EXPECT_EQ(counts(StateExchange::doubling, row, 0), (OperationCounters{1, 2, 2 * map, 0, 0}));
  EXPECT_EQ(counts(StateExchange::doubling, row, 2), (OperationCounters{1, 1, map, 2, 2 * map}));
  // 0 1 2 3 3 2 1 0, distances 1, 2 and 4: rank 3 hears 2, then 1 and 2, then 0 and 1.
  EXPECT_EQ(counts(StateExchange::doubling, zigzag(4), 3), (OperationCounters{1, 4, 4 * map, 4, 4 * map}));
  EXPECT_EQ(counts(StateExchange::chain, row, 1), (OperationCounters{1, 3, state, 3, state}));
  EXPECT_EQ(counts(StateExchange::chain, row, 0, ChainDirection::descending), (OperationCounters{1, 0, 0, 3, state}));
  EXPECT_EQ(counts(StateExchange::chain, zigzag(4), 3), (OperationCounters{1, 3, state, 3, state}));
  EXPECT_EQ(counts(StateExchange::chain, zigzag(4), 0), (OperationCounters{1, 3, state, 3, state}));
}

TEST(StateExchange, BothEndsCountTheSame) {
  const StateMapShape shape{1, 3, 4, 2};
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const Owners& owners : chains(ranks)) {
      for (const StateExchange form : forms) {
        OperationCounters total;
        OperationCounters back;
        const Owners reversed(owners.rbegin(), owners.rend());
        for (int rank = 0; rank < ranks; ++rank) {
          const Place place{rank, ranks};
          total += state_exchange_counts(form, owners, place, ChainDirection::ascending, shape, 8);
          const auto down = state_exchange_counts(form, owners, place, ChainDirection::descending, shape, 8);
          EXPECT_EQ(down, state_exchange_counts(form, reversed, place, ChainDirection::ascending, shape, 8));
          back += down;
        }
        EXPECT_EQ(total.messages_sent, total.messages_received);
        EXPECT_EQ(total.bytes_sent, total.bytes_received);
        EXPECT_EQ(total.bytes_sent, back.bytes_sent) << describe(owners, form, ChainDirection::descending);
      }
    }
  }
}

// The neighbours of a rank that throws still get what it owes them.
TEST(StateExchange, ARankThatThrowsLetsTheOthersEnd) {
  const auto comm = world();
  const int culprit = comm.size() / 2;
  const Problem<float> problem{zigzag(comm.size()), {2, 5, 6, 1}, 9};
  for (const StateExchange form : forms) {
    const Share<float> share(problem, comm, form, ChainDirection::ascending);
    const auto run = [&] {
      StateArrival<float, Exec> arrival = share.post(comm);
      if (comm.rank() == culprit) throw std::runtime_error("elsewhere");
      arrival.request.wait();
      expect_serial(problem, comm.rank(), ChainDirection::ascending, download<float>(arrival.entering), name_of(form));
    };
    if (comm.rank() == culprit) {
      EXPECT_THROW(run(), std::runtime_error);
    } else {
      EXPECT_NO_THROW(run());
    }
    exchange_and_compare(problem, comm, form, ChainDirection::ascending);
  }
}

TEST(StateExchange, APlanMayEndBeforeItsRequest) {
  const auto comm = world();
  const Problem<float> problem{zigzag(comm.size()), {2, 5, 6, 1}, 9};
  for (const StateExchange form : forms) {
    auto share = std::make_unique<Share<float>>(problem, comm, form, ChainDirection::ascending);
    const auto maps = share->maps;
    const auto workspace = share->workspace;
    StateArrival<float, Exec> arrival = share->post(comm);
    share.reset();
    arrival.request.wait_on(Exec());
    Exec().fence();
    expect_serial(problem, comm.rank(), ChainDirection::ascending, download<float>(arrival.entering), name_of(form));
  }
}

TEST(StateExchange, RepeatsBitByBitAndAllocatesNothing) {
  const auto comm = world();
  const Problem<float> problem{random_owners(comm.size(), 4), {2, 5, 131, 2}, 11};
  for (const StateExchange form : forms) {
    const Share<float> share(problem, comm, form, ChainDirection::descending);
    StateArrival<float, Exec> first = share.post(comm);
    first.request.wait();
    const std::vector<float> wanted = download<float>(first.entering);
    Kokkos::deep_copy(share.workspace, std::byte{0xff});
    const MemoryMeter meter;
    StateArrival<float, Exec> second = share.post(comm);
    second.request.wait();
    EXPECT_EQ(meter.allocations(), 0U) << name_of(form);
    const std::vector<float> given = download<float>(second.entering);
    ASSERT_EQ(given.size(), wanted.size());
    EXPECT_TRUE(std::equal(given.begin(), given.end(), wanted.begin(), [](float a, float b) {
      return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
    })) << name_of(form);
  }
}

// Everything runs on the given instance; only wait() promises the states to anybody, and so has to fence.
TEST(StateExchange, KernelsAndFences) {
  const auto comm = world();
  const Problem<float> problem{zigzag(comm.size()), {2, 5, 6, 2}, 11};
  const std::string complete = "krait::comm: received data complete";
  for (const StateExchange form : forms) {
    const Share<float> share(problem, comm, form, ChainDirection::ascending);
    const auto fences_of = [&](auto&& wait) {
      const CallbackRecorder recorder;
      StateArrival<float, Exec> arrival = share.post(comm);
      wait(arrival.request);
      for (const auto& kernel : recorder.kernels())
        EXPECT_EQ(kernel.device, Kokkos::Tools::Experimental::device_id(Exec())) << kernel.label;
      EXPECT_THAT(recorder.foreign_labels(), IsEmpty());
      const auto is_last = [&](const CallbackRecorder::Event& fence) { return fence.label == complete; };
      return std::count_if(recorder.fences().begin(), recorder.fences().end(), is_last);
    };
    EXPECT_EQ(fences_of([](Request& request) { request.wait_on(Exec()); }), 0) << name_of(form);
    EXPECT_EQ(fences_of([](Request& request) { request.wait(); }), 1) << name_of(form);
  }
}

TEST(StateExchange, Errors) {
  const auto comm = world();
  const Place place = comm.place();
  const auto make = [&](StateExchange form, const Owners& owners, const StateMapShape& shape) {
    return StateExchangePlan<float, Exec>(form, owners, place, ChainDirection::ascending, shape);
  };
  const StateMapShape shape{2, 5, 6, 0};
  EXPECT_THAT([&] { make(StateExchange::automatic, {0}, shape); },
              ThrowsMessage<ConfigError>(HasSubstr("the form is automatic, expected all_gather")));
  EXPECT_THAT([&] { make(StateExchange::chain, {0, comm.size()}, shape); },
              ThrowsMessage<ConfigError>(HasSubstr("segment 1 belongs to rank")));
  EXPECT_THAT([&] { make(StateExchange::chain, {0}, {2, 5, 6, -1}); },
              ThrowsMessage<ConfigError>(HasSubstr("chain_heads is -1, expected 0 or more")));
  EXPECT_THAT([&] { make(StateExchange::chain, {0}, {-2, 5, 6, 0}); },
              ThrowsMessage<ShapeError>(HasSubstr("the maps have -2 rows of 5 heads of 6 numbers")));
  EXPECT_THAT([&] { state_exchange_counts(StateExchange::automatic, {0}, place, ChainDirection::ascending, shape, 4); },
              ThrowsMessage<ConfigError>(HasSubstr("krait::state_exchange_counts: the form is automatic")));

  const Problem<float> problem{zigzag(comm.size()), shape, 1};
  const Share<float> share(problem, comm, StateExchange::chain, ChainDirection::ascending);
  const Tensor<const float**, Exec> maps = share.maps;
  const Tensor<std::byte*, Exec> workspace = share.workspace;
  const auto post = [&](const Communicator& group, const Tensor<const float**, Exec>& given,
                        const Tensor<std::byte*, Exec>& space) {
    static_cast<void>(share.plan.post(Exec(), group, given, space));
  };
  const auto but_one = [](std::size_t n) { return Kokkos::pair<std::size_t, std::size_t>(0, n - 1); };
  EXPECT_THAT([&] { post(comm, Kokkos::subview(maps, Kokkos::ALL, but_one(maps.extent(1))), workspace); },
              ThrowsMessage<ShapeError>(HasSubstr("maps is (4, 34), expected (4, 35)")));
  EXPECT_THAT([&] { post(comm, maps, Kokkos::subview(workspace, but_one(workspace.size()))); },
              ThrowsMessage<CapacityError>(HasSubstr("bytes, expected at least")));
  const Kokkos::View<float**, Kokkos::LayoutLeft, Memory> other("krait::test::other", maps.extent(0), maps.extent(1));
  EXPECT_THAT([&] { post(comm, other, workspace); }, ThrowsMessage<ShapeError>(HasSubstr("expected contiguous slots")));
  if (comm.size() > 1) {
    EXPECT_THAT([&] { post(Communicator::self(), maps, workspace); },
                ThrowsMessage<LayoutError>(HasSubstr("this is rank 0 of 1")));
  }
}

}  // namespace
}  // namespace krait::test
