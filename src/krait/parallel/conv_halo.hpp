// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/comm/request.hpp>
#include <krait/core/runs.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/parallel/segment_chain.hpp>
#include <krait/parallel/shard_runs.hpp>

namespace krait::impl {

/// A token that a segment fetches.
struct HaloEntry {
  std::int64_t slot = 0;  ///< of the segment, in its first row
  std::int64_t tap = 0;   ///< of the state, 0 is the oldest
};

/// The d_conv - 1 inputs before each segment, which the convolution's first windows reach into. They are fetched from
/// the ranks that hold them, several if segments are short. Their gradients go the way back, in accumulator_t<T>, and
/// enter the backward of those ranks' convolution as gradients of its final states: so they are rounded once.
/// An entry is one token for one segment: (rows, channels) elements. Which entries travel follows from the layout
/// alone; that a document begins among them is said by `parts`, those of ShardRuns on the device.
template <Scalar T, class Exec>
class ConvHalo {
 public:
  using A = accumulator_t<T>;
  using Table = Kokkos::View<const std::int64_t*, typename Exec::memory_space>;
  using Parts = Kokkos::View<const DocumentPart*, typename Exec::memory_space>;

  ConvHalo(const SegmentChain& chain, const SequenceLayout& layout, std::int64_t rows, std::int64_t channels,
           std::int64_t d_conv);

  /// Elements that this rank sends forward and receives backward, and the other way round.
  [[nodiscard]] std::int64_t outgoing() const { return entry() * static_cast<std::int64_t>(packed_.extent(0)); }
  [[nodiscard]] std::int64_t incoming() const { return entry() * static_cast<std::int64_t>(arrived_.extent(0)); }
  /// Elements of a state, and of those of this rank's slots.
  [[nodiscard]] std::int64_t state() const { return channels_ * taps_; }
  [[nodiscard]] std::int64_t states() const { return slots_ * state(); }
  [[nodiscard]] std::int64_t taps() const { return taps_; }

  /// \param input  (rows, l, channels)
  [[nodiscard]] Request send(const Exec& exec, const Communicator& context, const Tensor<const T***, Exec>& input,
                             const Tensor<T*, Exec>& out, const Tensor<T*, Exec>& in) const;
  /// \param in      what arrived
  /// \param states  (states, channels, d_conv - 1) of the pieces; overwritten at tokens of the head pieces' documents
  void unpack(const Exec& exec, const Tensor<const T*, Exec>& in, const Parts& parts,
              const Tensor<T***, Exec>& states) const;

  /// \name The way back
  /// \{

  /// The first d_conv - 1 tokens of each slot: what reaches into the halo.
  /// \param whole   (rows, l, channels)
  /// \param firsts  (slots, d_conv - 1, channels), overwritten; what a segment has fewer of stays as it is
  void first_tokens(const Exec& exec, const Tensor<const T***, Exec>& whole, const Tensor<T***, Exec>& firsts) const;
  /// The head pieces' part of them, with their slots as states.
  [[nodiscard]] SequenceRuns first_runs(const ShardRuns& runs) const;

  /// \param dstates  (slots, channels, d_conv - 1), gradients of the states
  [[nodiscard]] Request send_back(const Exec& exec, const Communicator& context,
                                  const Tensor<const A***, Exec>& dstates, const Parts& parts,
                                  const Tensor<A*, Exec>& out, const Tensor<A*, Exec>& in) const;
  /// Adds what came back, in the chain's order, to the gradients of the last inputs of each tail piece.
  /// \param tail_states  of each slot, number of the tail piece's state, or -1
  /// \param dfinal       (states, channels, d_conv - 1)
  void sum(const Exec& exec, const Tensor<const A*, Exec>& in, const Table& tail_states,
           const Tensor<A***, Exec>& dfinal) const;
  /// \}

 private:
  [[nodiscard]] std::int64_t entry() const { return rows_ * channels_; }

  std::int64_t rows_, channels_, taps_, slots_;
  std::vector<std::int64_t> send_counts_, receive_counts_;                 ///< elements per rank
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> packed_;  ///< local position of each entry sent
  Kokkos::View<const HaloEntry*, typename Exec::memory_space> arrived_;    ///< of each entry received
  Table first_locals_, lengths_;                                           ///< of each segment
  /// Entries sent by the state they are part of the gradient of: (segment * (d_conv - 1) + tap) has those in
  /// sources_[begins_(i), begins_(i + 1)).
  Table begins_, sources_;
};

}  // namespace krait::impl
