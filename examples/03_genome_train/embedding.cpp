// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "embedding.hpp"

#include "symbols.hpp"

namespace genome::train {
namespace {

constexpr std::int64_t block_tokens = 512;

std::int64_t blocks_of(std::int64_t tokens) { return (tokens + block_tokens - 1) / block_tokens; }

template <class T>
struct Embed {
  Symbols inputs;
  Slice<T> table;
  Hidden<T> stream;
  KOKKOS_FUNCTION void operator()(std::int64_t i, std::int64_t j) const {
    stream(0, i, j) = table(inputs(i) * static_cast<std::int64_t>(stream.extent(2)) + j);
  }
};

/// partial[block][symbol][feature] = sum over the block's tokens
template <class T>
struct SumBlock {
  using Team = typename Kokkos::TeamPolicy<Exec>::member_type;
  Symbols inputs;
  Hidden<T> dstream;
  T* partial;
  KOKKOS_FUNCTION void operator()(const Team& team) const {
    const auto features = static_cast<std::int64_t>(dstream.extent(2));
    const std::int64_t begin = team.league_rank() * block_tokens;
    const std::int64_t tokens = static_cast<std::int64_t>(dstream.extent(1));
    const std::int64_t end = begin + block_tokens < tokens ? begin + block_tokens : tokens;
    T* const sums = partial + static_cast<std::int64_t>(team.league_rank()) * symbols * features;
    const auto vector_range = [&](std::int64_t count) { return Kokkos::TeamVectorRange(team, count); };
    Kokkos::parallel_for(vector_range(symbols * features), [&](const std::int64_t k) { sums[k] = 0; });
    team.team_barrier();
    for (std::int64_t i = begin; i < end; ++i) {
      T* const sum = sums + inputs(i) * features;
      // A feature is always the same thread's, so that the order of tokens holds without a barrier.
      Kokkos::parallel_for(vector_range(features), [&](const std::int64_t j) { sum[j] += dstream(0, i, j); });
    }
  }
};

template <class T>
struct SumOfBlocks {
  const T* partial;
  std::int64_t blocks;
  Slice<T> dtable;
  KOKKOS_FUNCTION void operator()(std::int64_t k) const {
    T sum = 0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      sum += partial[block * static_cast<std::int64_t>(dtable.extent(0)) + k];
    }
    dtable(k) += sum;
  }
};

}  // namespace

template <class T>
void embed(const Exec& exec, const Symbols& inputs, const Slice<T>& table, const Hidden<T>& stream) {
  Kokkos::parallel_for(
      "krait_genome_train::embed",
      range(exec, static_cast<std::int64_t>(stream.extent(1)), static_cast<std::int64_t>(stream.extent(2))),
      Embed<T>{inputs, table, stream});
}

template <class T>
std::size_t embed_backward_bytes(std::int64_t tokens, std::int64_t features) {
  return static_cast<std::size_t>(blocks_of(tokens) * symbols * features) * sizeof(T);
}

template <class T>
void embed_backward(const Exec& exec, const Symbols& inputs, const Hidden<T>& dstream, const Slice<T>& dtable,
                    T* workspace) {
  const std::int64_t blocks = blocks_of(static_cast<std::int64_t>(dstream.extent(1)));
  Kokkos::parallel_for("krait_genome_train::embed_backward",
                       Kokkos::TeamPolicy<Exec>(exec, static_cast<int>(blocks), Kokkos::AUTO),
                       SumBlock<T>{inputs, dstream, workspace});
  Kokkos::parallel_for("krait_genome_train::embed_backward_sum",
                       range(exec, static_cast<std::int64_t>(dtable.extent(0))),
                       SumOfBlocks<T>{workspace, blocks, dtable});
}

#define INSTANTIATE(T)                                                                 \
  template void embed(const Exec&, const Symbols&, const Slice<T>&, const Hidden<T>&); \
  template std::size_t embed_backward_bytes<T>(std::int64_t, std::int64_t);            \
  template void embed_backward(const Exec&, const Symbols&, const Hidden<T>&, const Slice<T>&, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace genome::train
