// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Who holds which token.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <krait/comm/place.hpp>
#include <krait/core/device_table.hpp>

namespace krait {

/// How a sequence is cut when its length does not divide by the number of chunks.
enum class Policy {
  even,      ///< the first chunks are one token longer; any length works, no padding
  exact,     ///< refuse such a length
  tail_pad,  ///< all chunks have the length of the longest; padding tokens follow the sequence
};

/// Consecutive tokens [token, token + count) at consecutive local positions [local, local + count) of one rank.
struct Stretch {
  std::int64_t token = 0;
  std::int64_t local = 0;
  std::int64_t count = 0;

  friend bool operator==(const Stretch&, const Stretch&) = default;
};

/// A document of a layout: tokens [begin, end) of which the first `real` are not padding.
struct Slot {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t real = 0;

  friend bool operator==(const Slot&, const Slot&) = default;
};

/// Which global tokens each rank holds, and in which order: the same for every row of a batch. Where convolution and
/// state reset is another matter and is said by a DocumentMap.
///
///     tokens of two ranks   contiguous         zigzag            zigzag per document, [0,8) and [8,12)
///     rank 0                0 1 2 3            0 1 6 7           0 1 6 7  8 11
///     rank 1                4 5 6 7            2 3 4 5           2 3 4 5  9 10
///
/// *Rank-major order* is all tokens of rank 0, then all of rank 1, and so on. The *place* of a token is its position
/// in that order: it is where an exchange of unequal shards delivers it.
///
/// Tokens are numbered from 0 to length(), padding of Policy::tail_pad included. An immutable, cheap handle: copies
/// share all tables, which are built at most once. It must end before Kokkos::finalize. Any number of ranks and any
/// length work, also fewer tokens than ranks. The `place` of the factories is any communicator, or a Place.
class SequenceLayout {
 public:
  enum class Kind { contiguous, zigzag, zigzag_docs, explicit_tokens };

  /// Rank r holds the r-th of P equal stretches of the row (or of the flat packed stream).
  /// \throws LayoutError when length is negative, or does not divide by P under Policy::exact
  static SequenceLayout contiguous(const Place& place, std::int64_t length, Policy policy = Policy::even);

  /// The row is cut into 2P chunks; rank r holds chunk r, then chunk 2P-1-r. So causal attention costs every rank the
  /// same. (Upstream: "dual chunk swap".)
  /// \throws LayoutError when length is negative, or does not divide by 2P under Policy::exact
  static SequenceLayout zigzag(const Place& place, std::int64_t length, Policy policy = Policy::even);

  /// Every document of a packed stream is cut in zigzag by itself; rank r holds its part of the first document, then
  /// of the second, and so on.
  /// \param cu_seqlens  document d is tokens [cu[d], cu[d+1]); cu[0] = 0. With tail_pad these are the unpadded
  ///                    boundaries, and padded_boundaries() are those of the numbering in use.
  /// \throws LayoutError when cu_seqlens is no list of boundaries, or a document does not divide by 2P under
  ///                     Policy::exact
  static SequenceLayout zigzag_docs(const Place& place, const std::vector<std::int64_t>& cu_seqlens,
                                    Policy policy = Policy::even);

  /// Rank r holds tokens[r], in that order.
  /// \throws LayoutError when there is not one list per rank, or the lists are not a partition of [0, sum of sizes)
  static SequenceLayout explicit_tokens(const Place& place, const std::vector<std::vector<std::int64_t>>& tokens);

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int ranks() const;
  [[nodiscard]] Place place() const { return {rank_, ranks()}; }
  [[nodiscard]] Kind kind() const;
  /// For messages: "zigzag(even) layout of 10 tokens for rank 0 of 2".
  [[nodiscard]] std::string description() const;

  /// Tokens per row, padding included.
  [[nodiscard]] std::int64_t length() const;
  /// Tokens per row that are not padding.
  [[nodiscard]] std::int64_t real_length() const;
  /// Tokens per row on this rank, or on another.
  [[nodiscard]] std::int64_t local_length() const { return local_length(rank_); }
  [[nodiscard]] std::int64_t local_length(int rank) const;
  /// First place of a rank: the tokens of all ranks before it.
  [[nodiscard]] std::int64_t base(int rank) const;

  /// The token at local position i of this rank, or of another.
  [[nodiscard]] std::int64_t global_of_local(std::int64_t i) const { return global_of_local(rank_, i); }
  [[nodiscard]] std::int64_t global_of_local(int rank, std::int64_t i) const;
  /// The rank that holds token t.
  [[nodiscard]] int owner(std::int64_t t) const;
  /// The local position of token t on its owner.
  [[nodiscard]] std::int64_t local_of_global(std::int64_t t) const;
  /// The place of token t in rank-major order: base(owner(t)) + local_of_global(t).
  [[nodiscard]] std::int64_t place_of_global(std::int64_t t) const;
  /// The stretches of one rank, by local position; neighbours are merged.
  [[nodiscard]] std::vector<Stretch> stretches(int rank) const;
  /// True when rank-major order is the sequential order.
  [[nodiscard]] bool is_identity() const;

  /// The documents of a zigzag_docs layout, otherwise one slot with the whole row.
  [[nodiscard]] const std::vector<Slot>& slots() const;
  /// Boundaries of the slots, and their real lengths: what DocumentMap::from_cu_seqlens() takes.
  [[nodiscard]] std::vector<std::int64_t> padded_boundaries() const;
  [[nodiscard]] std::vector<std::int64_t> real_lengths() const;
  /// The number of token t without padding, or -1 when it is padding.
  [[nodiscard]] std::int64_t source_token(std::int64_t t) const;

  /// The gather index: `index[t]` is the place of token t, so sequential[t] = rank_major[index[t]]. A new vector.
  [[nodiscard]] std::vector<std::int64_t> index() const;
  /// Its inverse, the token at each place.
  [[nodiscard]] std::vector<std::int64_t> inverse_index() const;
  /// index() in MemorySpace, built at the first call and shared by all copies of this layout.
  template <class MemorySpace>
  [[nodiscard]] Kokkos::View<const std::int64_t*, MemorySpace> index_map() const;
  template <class MemorySpace>
  [[nodiscard]] Kokkos::View<const std::int64_t*, MemorySpace> inverse_index_map() const;
  /// How many index maps were built so far, for tests.
  [[nodiscard]] std::size_t map_builds() const;

  /// `places[j]`: where chunk j lies when the 2P chunks of a zigzag (P of a contiguous layout) are listed rank-major.
  /// (Upstream: `_undo_attention_load_balancing`.)
  /// \throws LayoutError for explicit layouts, which have no chunks
  [[nodiscard]] std::vector<std::int64_t> undo_order() const;
  /// The inverse: which chunk lies at each place. (Upstream: `_redo_attention_load_balancing`.)
  [[nodiscard]] std::vector<std::int64_t> redo_order() const;
  /// From rank-major to document-major order (all ranks' parts of document 0, then of document 1, ...):
  /// document_major[k] = rank_major[index[k]]. (Upstream: `_deinterleave_packed_seqs`.)
  [[nodiscard]] std::vector<std::int64_t> deinterleave_index() const;
  /// The inverse: rank_major[p] = document_major[index[p]]. (Upstream: `_reinterleave_packed_seqs`.)
  [[nodiscard]] std::vector<std::int64_t> reinterleave_index() const;

  /// True when this layout was built for these ranks and rows of this many tokens.
  [[nodiscard]] bool matches(const Place& place, std::int64_t length) const;
  /// \param function  the public function that checks, for the message
  /// \throws LayoutError unless matches(place, length)
  void require_match(const std::string& function, const Place& place, std::int64_t length) const;
  /// \throws LayoutError unless it was built for these ranks
  void require_match(const std::string& function, const Place& place) const;

  /// Equal when every rank holds the same tokens in the same order, whichever factory made them.
  friend bool operator==(const SequenceLayout& a, const SequenceLayout& b);

 private:
  struct Data;
  static SequenceLayout cut_row(const std::string& function, Kind kind, const Place& place, std::int64_t length,
                                Policy policy);
  SequenceLayout(int rank, std::shared_ptr<const Data> data) : rank_(rank), data_(std::move(data)) {}
  [[nodiscard]] impl::PerSpace& forward_maps() const;
  [[nodiscard]] impl::PerSpace& inverse_maps() const;

  int rank_ = 0;
  std::shared_ptr<const Data> data_;
};

template <class MemorySpace>
Kokkos::View<const std::int64_t*, MemorySpace> SequenceLayout::index_map() const {
  return forward_maps().template get<MemorySpace>(
      [this] { return impl::upload_table<MemorySpace>("krait::layout::index", index()); });
}

template <class MemorySpace>
Kokkos::View<const std::int64_t*, MemorySpace> SequenceLayout::inverse_index_map() const {
  return inverse_maps().template get<MemorySpace>(
      [this] { return impl::upload_table<MemorySpace>("krait::layout::inverse_index", inverse_index()); });
}

}  // namespace krait
