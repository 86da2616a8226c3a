// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/conv_halo.hpp>

#include <algorithm>
#include <map>
#include <utility>

#include <krait/comm/collectives.hpp>
#include <krait/core/device_table.hpp>
#include <krait/core/instantiate.hpp>

namespace krait::impl {
namespace {

template <class Exec>
using Range = Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>;

/// out(entry, row, channel) = input(row, position(entry), channel)
template <Scalar T, class Exec>
struct PackHalo {
  Tensor<const T***, Exec> input;
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> positions;
  Tensor<T*, Exec> out;
  std::int64_t rows, channels;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t channel = i % channels;
    const std::int64_t row = i / channels % rows;
    out(i) = input(row, positions(i / channels / rows), channel);
  }
};

/// Whether the token is one of the document that the segment goes on with.
KOKKOS_INLINE_FUNCTION bool in_document(const DocumentPart& head, const HaloEntry& entry, std::size_t taps) {
  return static_cast<std::int64_t>(taps) - entry.tap <= head.before;
}

template <Scalar T, class Exec>
struct UnpackHalo {
  Tensor<const T*, Exec> in;
  Kokkos::View<const HaloEntry*, typename Exec::memory_space> entries;
  Kokkos::View<const DocumentPart*, typename Exec::memory_space> parts;
  Tensor<T***, Exec> states;
  std::int64_t rows, channels;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t channel = i % channels;
    const std::int64_t row = i / channels % rows;
    const HaloEntry entry = entries(i / channels / rows);
    const std::int64_t slot = entry.slot + row;
    if (in_document(parts(slot), entry, states.extent(2))) states(slot, channel, entry.tap) = in(i);
  }
};

/// The other way: gradients of states, 0 where the state was not the token's input.
template <class A, class Exec>
struct PackHaloGradients {
  Tensor<const A***, Exec> dstates;
  Kokkos::View<const HaloEntry*, typename Exec::memory_space> entries;
  Kokkos::View<const DocumentPart*, typename Exec::memory_space> parts;
  Tensor<A*, Exec> out;
  std::int64_t rows, channels;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t channel = i % channels;
    const std::int64_t row = i / channels % rows;
    const HaloEntry entry = entries(i / channels / rows);
    const std::int64_t slot = entry.slot + row;
    out(i) = in_document(parts(slot), entry, dstates.extent(2)) ? dstates(slot, channel, entry.tap) : A(0);
  }
};

template <Scalar T, class Exec>
struct FirstTokens {
  using Table = Kokkos::View<const std::int64_t*, typename Exec::memory_space>;
  Tensor<const T***, Exec> whole;
  Tensor<T***, Exec> firsts;
  Table first_locals, lengths;
  std::int64_t rows, taps, channels;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t channel = i % channels;
    const std::int64_t token = i / channels % taps;
    const std::int64_t slot = i / channels / taps;
    const std::int64_t segment = slot / rows;
    if (token < lengths(segment))
      firsts(slot, token, channel) = whole(slot % rows, first_locals(segment) + token, channel);
  }
};

template <class A, class Exec>
struct SumHaloGradients {
  using Table = Kokkos::View<const std::int64_t*, typename Exec::memory_space>;
  Tensor<const A*, Exec> in;
  Table begins, sources, tail_states;
  Tensor<A***, Exec> dfinal;
  std::int64_t rows, taps, channels;
  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    const std::int64_t channel = i % channels;
    const std::int64_t tap = i / channels % taps;
    const std::int64_t slot = i / channels / taps;
    const std::int64_t state = tail_states(slot);
    if (state < 0) return;
    const std::int64_t target = slot / rows * taps + tap;
    A sum = 0;
    for (std::int64_t s = begins(target); s < begins(target + 1); ++s)
      sum += in((sources(s) * rows + slot % rows) * channels + channel);
    dfinal(state, channel, tap) += sum;
  }
};

}  // namespace

template <Scalar T, class Exec>
ConvHalo<T, Exec>::ConvHalo(const SegmentChain& chain, const SequenceLayout& layout, std::int64_t rows,
                            std::int64_t channels, std::int64_t d_conv)
    : rows_(rows),
      channels_(channels),
      taps_(d_conv - 1),
      slots_(static_cast<std::int64_t>(chain.of(layout.rank()).size()) * rows),
      send_counts_(static_cast<std::size_t>(layout.ranks())),
      receive_counts_(send_counts_.size()) {
  const int here = layout.rank();
  struct Sent {
    std::int64_t local;  // position
    std::int64_t state;  // of which its gradient is a part
  };
  std::vector<std::vector<Sent>> sent(send_counts_.size());
  std::vector<std::vector<HaloEntry>> received(send_counts_.size());
  std::vector<std::int64_t> slots(send_counts_.size());
  const std::vector<Segment>& segments = chain.segments();
  std::map<std::size_t, std::int64_t> own;  // number among this rank's segments
  std::vector<std::int64_t> first_locals, lengths;
  for (const std::int64_t number : chain.of(here)) {
    const Segment& segment = segments[static_cast<std::size_t>(number)];
    own.emplace(static_cast<std::size_t>(number), static_cast<std::int64_t>(own.size()));
    first_locals.push_back(segment.local);
    lengths.push_back(segment.count);
  }
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto reader = static_cast<std::size_t>(segments[s].owner);
    std::size_t before = s;  // the segment that holds the token; they are met in descending order
    for (std::int64_t back = 1; back <= std::min(taps_, segments[s].token); ++back) {
      const std::int64_t token = segments[s].token - back;
      while (segments[before].token > token) --before;
      const auto holder = static_cast<std::size_t>(segments[before].owner);
      if (segments[before].owner == here)
        sent[reader].push_back({.local = segments[before].local + token - segments[before].token,
                                .state = own.at(before) * taps_ + taps_ - (segments[before].end() - token)});
      if (segments[s].owner == here) received[holder].push_back({.slot = slots[reader], .tap = taps_ - back});
    }
    slots[reader] += rows;
  }

  std::vector<std::int64_t> packed;
  std::vector<HaloEntry> arrived;
  std::vector<std::vector<std::int64_t>> by_state(own.size() * static_cast<std::size_t>(taps_));
  for (std::size_t rank = 0; rank < sent.size(); ++rank) {
    send_counts_[rank] = entry() * static_cast<std::int64_t>(sent[rank].size());
    receive_counts_[rank] = entry() * static_cast<std::int64_t>(received[rank].size());
    for (const Sent& token : sent[rank]) {
      by_state[static_cast<std::size_t>(token.state)].push_back(static_cast<std::int64_t>(packed.size()));
      packed.push_back(token.local);
    }
    arrived.insert(arrived.end(), received[rank].begin(), received[rank].end());
  }
  std::vector<std::int64_t> begins{0};
  std::vector<std::int64_t> sources;
  for (const std::vector<std::int64_t>& places : by_state) {
    sources.insert(sources.end(), places.begin(), places.end());
    begins.push_back(static_cast<std::int64_t>(sources.size()));
  }
  using Space = typename Exec::memory_space;
  packed_ = upload_table<Space>("krait::ConvHalo::packed", packed);
  arrived_ = upload_table<Space>("krait::ConvHalo::arrived", arrived);
  first_locals_ = upload_table<Space>("krait::ConvHalo::first_locals", first_locals);
  lengths_ = upload_table<Space>("krait::ConvHalo::lengths", lengths);
  begins_ = upload_table<Space>("krait::ConvHalo::begins", begins);
  sources_ = upload_table<Space>("krait::ConvHalo::sources", sources);
}

template <Scalar T, class Exec>
Request ConvHalo<T, Exec>::send(const Exec& exec, const Communicator& context, const Tensor<const T***, Exec>& input,
                                const Tensor<T*, Exec>& out, const Tensor<T*, Exec>& in) const {
  Kokkos::parallel_for("krait::ConvHalo::pack", Range<Exec>(exec, 0, outgoing()),
                       PackHalo<T, Exec>{input, packed_, out, rows_, channels_});
  return comm::all_to_all_v(exec, context, out, send_counts_, in, receive_counts_);
}

template <Scalar T, class Exec>
void ConvHalo<T, Exec>::unpack(const Exec& exec, const Tensor<const T*, Exec>& in, const Parts& parts,
                               const Tensor<T***, Exec>& states) const {
  Kokkos::parallel_for("krait::ConvHalo::unpack", Range<Exec>(exec, 0, incoming()),
                       UnpackHalo<T, Exec>{in, arrived_, parts, states, rows_, channels_});
}

template <Scalar T, class Exec>
Request ConvHalo<T, Exec>::send_back(const Exec& exec, const Communicator& context,
                                     const Tensor<const A***, Exec>& dstates, const Parts& parts,
                                     const Tensor<A*, Exec>& out, const Tensor<A*, Exec>& in) const {
  Kokkos::parallel_for("krait::ConvHalo::pack_gradients", Range<Exec>(exec, 0, incoming()),
                       PackHaloGradients<A, Exec>{dstates, arrived_, parts, out, rows_, channels_});
  return comm::all_to_all_v(exec, context, out, receive_counts_, in, send_counts_);
}

template <Scalar T, class Exec>
void ConvHalo<T, Exec>::first_tokens(const Exec& exec, const Tensor<const T***, Exec>& whole,
                                     const Tensor<T***, Exec>& firsts) const {
  Kokkos::parallel_for("krait::ConvHalo::first_tokens", Range<Exec>(exec, 0, states()),
                       FirstTokens<T, Exec>{whole, firsts, first_locals_, lengths_, rows_, taps_, channels_});
}

template <Scalar T, class Exec>
SequenceRuns ConvHalo<T, Exec>::first_runs(const ShardRuns& runs) const {
  std::vector<Run> firsts;
  for (std::int64_t slot = 0; slot < slots_; ++slot) {
    const DocumentPart& head = runs.parts[static_cast<std::size_t>(slot)];
    if (head.document >= 0) firsts.push_back({slot, 0, std::min(taps_, head.tokens), slot});
  }
  return {slots_, taps_, std::move(firsts), slots_};
}

template <Scalar T, class Exec>
void ConvHalo<T, Exec>::sum(const Exec& exec, const Tensor<const A*, Exec>& in, const Table& tail_states,
                            const Tensor<A***, Exec>& dfinal) const {
  Kokkos::parallel_for("krait::ConvHalo::sum", Range<Exec>(exec, 0, states()),
                       SumHaloGradients<A, Exec>{in, begins_, sources_, tail_states, dfinal, rows_, taps_, channels_});
}

#define KRAIT_INSTANTIATE(T, EXEC) template class ConvHalo<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
