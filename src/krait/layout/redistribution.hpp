// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The fused exchange between sequence shards with all columns and whole sequences with a rank's own columns.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/comm/request.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/buffer_piece.hpp>
#include <krait/layout/section_table.hpp>
#include <krait/layout/sequence_layout.hpp>

namespace krait {

/// Plan of an exchange, in both directions, for tensors of one row width. Two sides:
///
///     sequence side   tensor (rows, local_length, width)       this rank's tokens, all columns, any strides
///     heads side      tensor (rows, length, local_width)       all tokens, this rank's columns
///
/// On the heads side tokens lie in rank-major order, as they arrive: token t of the sequence is found at place
/// `layout().index_map()(t)`. Consumers read through that map, so there is no unpack pass; producers of the way back
/// write through it, so there is no pack pass.
///
///     enter   in  --pack-->  sequence buffer  ==exchange==>  heads buffer     read as heads_view()
///             in  --own columns of own tokens-------------->
///     leave   heads_view() written  heads buffer  ==exchange==>  sequence buffer  --unpack-->  out
///
/// Each direction is the backward of the other: gradients of what was entered leave through unpack_sum(), gradients of
/// what left are entered.
///
/// Buffers are the caller's: sequence_buffer_size() and heads_buffer_size() elements, unit stride. They may be reused
/// as soon as the step that reads them is over (a kernel: in the order of `exec`; an exchange: when its Request is).
/// Columns that several ranks work on (groups shared by ranks) are read several times by the pack; nothing else is
/// copied for them.
///
/// On one rank that keeps all columns, passthrough() is true: both sides are the same tensor, the buffers are empty and
/// nothing is copied or sent.
///
/// The communicator is an argument of the call; it must have the layout's rank and size. A plan is immutable: layers
/// share it. It must end before Kokkos::finalize.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class Redistribution {
 public:
  /// \param rows  rows of the batch, all with this layout
  /// \throws LayoutError when the table names another number of ranks than the layout
  /// \throws ShapeError when rows is negative
  Redistribution(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows);

  [[nodiscard]] const SequenceLayout& layout() const { return layout_; }
  [[nodiscard]] const SectionTable& table() const { return table_; }
  [[nodiscard]] std::int64_t rows() const { return rows_; }
  [[nodiscard]] std::int64_t width() const { return table_.width(); }
  [[nodiscard]] std::int64_t local_width() const { return table_.local_width(layout_.rank()); }
  [[nodiscard]] bool passthrough() const { return passthrough_; }

  /// Elements of the buffer [rank][local token][row][columns of that rank].
  [[nodiscard]] std::int64_t sequence_buffer_size() const;
  /// Elements of the buffer [place][row][local column].
  [[nodiscard]] std::int64_t heads_buffer_size() const;
  /// Elements per peer in the sequence buffer, and in the heads buffer: what one exchange sends and receives.
  [[nodiscard]] const std::vector<std::int64_t>& sequence_counts() const { return sequence_counts_; }
  [[nodiscard]] const std::vector<std::int64_t>& heads_counts() const { return heads_counts_; }

  /// \name Sequence side to heads side
  /// \{

  /// What enter() delivers. `heads` may be read once `request` is over.
  struct Arrival {
    Tensor<const T***, Exec> heads;  ///< (rows, length, local_width), tokens by place
    Request request;
  };
  /// As pack(), then send_to_heads(), in one kernel and one all-to-all, but what stays on the rank goes straight to the
  /// heads buffer, which must be free already; on passthrough() `heads` is `in`.
  /// \throws LayoutError for another rank or size of the communicator, ShapeError for another shape of `in`,
  ///         CapacityError when a buffer is too small; so do all steps
  [[nodiscard]] Arrival enter(const Exec& exec, const Communicator& comm, const Tensor<const T***, Exec>& in,
                              const Tensor<T*, Exec>& sequence_buffer, const Tensor<T*, Exec>& heads_buffer) const;
  /// One kernel: fills the sequence buffer from `in` (rows, local_length, width).
  void pack(const Exec& exec, const Tensor<const T***, Exec>& in, const Tensor<T*, Exec>& sequence_buffer) const;
  /// The same for rows whose columns lie in several tensors, one call each: `in` (rows, local_length, n) has columns
  /// [first_column, first_column + n).
  void pack_columns(const Exec& exec, const Tensor<const T***, Exec>& in, std::int64_t first_column,
                    const Tensor<T*, Exec>& sequence_buffer) const;
  /// One all-to-all.
  [[nodiscard]] Request send_to_heads(const Exec& exec, const Communicator& comm,
                                      const Tensor<const T*, Exec>& sequence_buffer,
                                      const Tensor<T*, Exec>& heads_buffer) const;
  /// Optional: `out` (rows, length, local_width) in sequential order from `heads` in order of places. One kernel.
  void to_sequential(const Exec& exec, const Tensor<const T***, Exec>& heads, const Tensor<T***, Exec>& out) const;
  /// \}

  /// \name Heads side to sequence side
  /// \{

  /// Where a producer writes what shall leave: token t of row b at (b, index_map()(t), :). `out` itself on
  /// passthrough(), otherwise heads_view(heads_buffer).
  [[nodiscard]] Tensor<T***, Exec> leave_target(const Tensor<T***, Exec>& out,
                                                const Tensor<T*, Exec>& heads_buffer) const;
  /// Optional, for producers that know only sequential order: fills `heads` from `in` (rows, length, local_width). One
  /// kernel.
  void from_sequential(const Exec& exec, const Tensor<const T***, Exec>& in, const Tensor<T***, Exec>& heads) const;
  /// One all-to-all. When the Request is over, unpack() gives the result.
  [[nodiscard]] Request send_to_sequence(const Exec& exec, const Communicator& comm,
                                         const Tensor<const T*, Exec>& heads_buffer,
                                         const Tensor<T*, Exec>& sequence_buffer) const;
  /// One kernel: writes `out` (rows, local_length, width) from the sequence buffer.
  /// \throws ConfigError when a column belongs to no rank, or to several
  void unpack(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer, const Tensor<T***, Exec>& out) const;
  /// The same, but columns that belong to no rank stay as they are: for one of several plans that bring a row home
  /// together. One kernel.
  /// \throws ConfigError when a column belongs to several ranks
  void unpack_part(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                   const Tensor<T***, Exec>& out) const;
  /// The same for gradients, with any sections: a column that several ranks work on is the sum of their parts, in
  /// accumulator_t<T> and ascending rank order, rounded once; one that belongs to no rank is 0. One kernel.
  void unpack_sum(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer, const Tensor<T***, Exec>& out) const;
  /// The same for one of several plans: columns that belong to no rank stay as they are.
  void unpack_sum_part(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                       const Tensor<T***, Exec>& out) const;
  /// \}

  /// The heads buffer as a tensor (rows, length, local_width), tokens by place.
  [[nodiscard]] Tensor<T***, Exec> heads_view(const Tensor<T*, Exec>& heads_buffer) const;

 private:
  template <class V>
  using Table = Kokkos::View<const V*, typename Exec::memory_space>;

  void copy_columns(const Exec& exec, const std::string& name, const Tensor<const T***, Exec>& in,
                    std::int64_t first_column, T* sequence_buffer, const impl::OtherBuffer<T>& other) const;
  /// \param clear  columns that belong to no rank become 0
  void sum_columns(const Exec& exec, const std::string& name, const Tensor<const T*, Exec>& sequence_buffer,
                   const Tensor<T***, Exec>& out, bool clear) const;
  void permute(const Exec& exec, const std::string& name, const Tensor<const T***, Exec>& from,
               const Tensor<T***, Exec>& to, bool to_places) const;
  void require_heads(const char* function, const char* name, const std::vector<std::int64_t>& extents) const;
  void require_shard(const char* function, const char* name, const std::vector<std::int64_t>& extents) const;
  void require_buffer(const char* function, const char* name, const Tensor<const T*, Exec>& buffer,
                      std::int64_t needed) const;

  SequenceLayout layout_;
  SectionTable table_;
  std::int64_t rows_;
  bool passthrough_;
  bool disjoint_;
  bool partition_;
  std::vector<std::int64_t> sequence_counts_;
  std::vector<std::int64_t> heads_counts_;
  // Of the sequence buffer: where columns go to, and come from.
  Table<impl::BufferPiece> pieces_;
  std::int64_t first_own_piece_ = 0;
  std::int64_t own_pieces_ = 0;
  Table<impl::SumPiece> sum_pieces_;
  Table<impl::SumSource> sum_sources_;
};

}  // namespace krait
