// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Where convolution and state reset.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <krait/core/runs.hpp>
#include <krait/layout/sequence_layout.hpp>

namespace krait {

/// The documents of each row of a batch, in global token numbers: independent of who holds which token. Every document
/// has its own convolution state and its own SSM state; they are numbered in the order of rows and tokens.
///
/// An immutable, cheap handle: copies share the tables, which are built at most once. It must end before
/// Kokkos::finalize.
class DocumentMap {
 public:
  /// One document per row, the whole row.
  /// \throws LayoutError when rows or length is negative
  static DocumentMap whole_rows(std::int64_t rows, std::int64_t length);

  /// One row of packed documents: document d is tokens [cu[d], cu[d+1]). Tokens from cu[D] on, if any, are one more
  /// document. Empty documents are allowed; their final state is their initial one.
  /// \throws LayoutError when cu_seqlens has fewer than 2 entries, does not begin with 0, decreases, or ends above
  ///                     length
  static DocumentMap from_cu_seqlens(const std::vector<std::int64_t>& cu_seqlens, std::int64_t length);

  /// The same with padding: only the first real_lengths[d] tokens of document d count. The rest has no state, gives
  /// zeros, and is read by nothing.
  /// \throws LayoutError also when a real length is negative or exceeds its document
  static DocumentMap from_cu_seqlens(const std::vector<std::int64_t>& cu_seqlens,
                                     const std::vector<std::int64_t>& real_lengths, std::int64_t length);

  /// Boundaries of their own for every row of a batch.
  static DocumentMap from_cu_seqlens_per_row(const std::vector<std::vector<std::int64_t>>& cu_seqlens,
                                             std::int64_t length);

  /// Documents given by an id per token, row by row: a document is a longest stretch of one id that is not negative.
  /// A negative id marks padding. An id that returns later begins a new document.
  /// \throws LayoutError when the number of ids is not rows * length
  static DocumentMap from_seq_idx(const std::vector<std::int32_t>& seq_idx, std::int64_t rows, std::int64_t length);

  [[nodiscard]] std::int64_t rows() const;
  /// Tokens per row.
  [[nodiscard]] std::int64_t length() const;
  /// Documents of all rows: the number of states.
  [[nodiscard]] std::int64_t documents() const;
  /// What the operators read: one run per document, with the document's number as its state. Every call returns the
  /// same shared tables.
  [[nodiscard]] const SequenceRuns& runs() const;
  /// The id of every token, row by row, as upstream kernels take it: the number of the token's document in its row,
  /// -1 for padding. A new vector.
  [[nodiscard]] std::vector<std::int32_t> seq_idx() const;

  /// Equal when the same tokens share a state, whatever the numbers of the documents; empty documents do not count.
  [[nodiscard]] bool same_resets(const DocumentMap& other) const;
  /// For callers who are given boundaries and ids: both must say the same.
  /// \throws LayoutError when seq_idx resets elsewhere than this map, naming the first token
  void require_agreement(const std::string& function, const std::vector<std::int32_t>& seq_idx) const;

  /// \throws LayoutError when rows, or tokens per row, differ
  void require_match(const std::string& function, std::int64_t rows, std::int64_t length) const;
  /// \throws LayoutError when the layout has another length, or cuts documents (zigzag_docs) of which one is not at
  ///                     most one document of this map
  void require_match(const std::string& function, const SequenceLayout& layout) const;

 private:
  explicit DocumentMap(SequenceRuns runs) : runs_(std::move(runs)) {}

  SequenceRuns runs_;
};

}  // namespace krait
