// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/layout/redistribution.hpp>

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include <krait/comm/collectives.hpp>
#include <krait/core/error.hpp>
#include <krait/core/instantiate.hpp>
#include <krait/layout/token_copy.hpp>

namespace krait {

namespace {

std::int64_t sum(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

/// The part of a buffer that an exchange fills or reads.
template <class Exec, class DataType>
Tensor<DataType, Exec> used(const Tensor<DataType, Exec>& buffer, const std::vector<std::int64_t>& counts) {
  return make_tensor<DataType, Exec, 1>(buffer.data(), {sum(counts)});
}

template <class T, class View>
std::int64_t bytes_of(const View& view) {
  return static_cast<std::int64_t>(view.size() * sizeof(T));
}

template <class T, class Exec>
std::string label(const char* function) {
  return std::string(function) + '[' + impl::backend_name<Exec>() + ',' + scalar_name<T>() + ']';
}

/// Elements of the parts before a rank's.
std::int64_t sum_before(const std::vector<std::int64_t>& counts, int rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, std::int64_t{0});
}

/// Where the columns of every rank lie in the sequence buffer, of which rank d's part has counts[d] elements.
struct SequencePieces {
  std::vector<impl::BufferPiece> all;
  std::int64_t first_own = 0;
  std::int64_t own = 0;
};

template <class T, class Exec>
SequencePieces sequence_pieces(const SectionTable& table, const std::vector<std::int64_t>& counts, int rank) {
  SequencePieces result;
  std::int64_t part = 0;
  for (int d = 0; d < table.ranks(); ++d) {
    const auto before = static_cast<std::int64_t>(result.all.size());
    for (const SectionTable::Piece& piece : table.pieces(d)) {
      for (std::int64_t done = 0; done < piece.count;) {
        const std::int64_t count = std::min(piece.count - done, impl::longest_piece<T, Exec>);
        result.all.push_back({piece.column + done, count, part + piece.local + done, table.local_width(d)});
        done += count;
      }
    }
    if (d == rank) {
      result.first_own = before;
      result.own = static_cast<std::int64_t>(result.all.size()) - before;
    }
    part += counts[static_cast<std::size_t>(d)];
  }
  return result;
}

/// The same seen from the columns, without gaps: how each of them is made of what the ranks send back.
struct Sums {
  std::vector<impl::SumPiece> pieces;
  std::vector<impl::SumSource> sources;  // of one piece in ascending rank order
};

Sums sums_of(const std::vector<impl::BufferPiece>& parts, std::int64_t width, std::int64_t longest) {
  std::vector<std::int64_t> cuts{0, width};
  for (const impl::BufferPiece& part : parts) {
    cuts.push_back(part.column);
    cuts.push_back(part.column + part.count);
  }
  std::sort(cuts.begin(), cuts.end());
  Sums result;
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    for (std::int64_t column = cuts[i - 1]; column < cuts[i];) {
      const std::int64_t count = std::min(cuts[i] - column, longest);
      impl::SumPiece piece{column, count, static_cast<std::int64_t>(result.sources.size()), 0};
      for (const impl::BufferPiece& part : parts) {
        if (part.column > column || column >= part.column + part.count) continue;
        result.sources.push_back({part.offset + column - part.column, part.stride});
        ++piece.sources;
      }
      result.pieces.push_back(piece);
      column += count;
    }
  }
  return result;
}

bool keeps_all_columns(const SectionTable& table) {
  return table.ranks() == 1 && table.local_width(0) == table.width();
}

}  // namespace

template <Scalar T, class Exec>
Redistribution<T, Exec>::Redistribution(const SequenceLayout& layout, const SectionTable& table, std::int64_t rows)
    : layout_(layout),
      table_(table),
      rows_(rows),
      passthrough_(keeps_all_columns(table)),
      disjoint_(table.is_disjoint()),
      partition_(table.is_partition()) {
  constexpr const char* function = "krait::Redistribution";
  KRAIT_REQUIRE(LayoutError, table.ranks() == layout.ranks(), function, ": the sections are shared out to ",
                table.ranks(), " ranks, but this is the ", layout.description());
  KRAIT_REQUIRE(ShapeError, rows >= 0, function, ": rows is ", rows, ", expected 0 or more");
  for (int r = 0; r < layout.ranks(); ++r) {
    sequence_counts_.push_back(layout.local_length() * rows * table.local_width(r));
    heads_counts_.push_back(layout.local_length(r) * rows * local_width());
  }
  if (passthrough_) return;
  using Memory = typename Exec::memory_space;
  const SequencePieces pieces = sequence_pieces<T, Exec>(table, sequence_counts_, layout.rank());
  const Sums sums = sums_of(pieces.all, table.width(), impl::longest_piece<T, Exec>);
  first_own_piece_ = pieces.first_own;
  own_pieces_ = pieces.own;
  pieces_ = impl::upload_table<Memory>("krait::redistribution::pieces", pieces.all);
  sum_pieces_ = impl::upload_table<Memory>("krait::redistribution::sum_pieces", sums.pieces);
  sum_sources_ = impl::upload_table<Memory>("krait::redistribution::sum_sources", sums.sources);
}

template <Scalar T, class Exec>
std::int64_t Redistribution<T, Exec>::sequence_buffer_size() const {
  return passthrough_ ? 0 : sum(sequence_counts_);
}

template <Scalar T, class Exec>
std::int64_t Redistribution<T, Exec>::heads_buffer_size() const {
  return passthrough_ ? 0 : sum(heads_counts_);
}

template <Scalar T, class Exec>
typename Redistribution<T, Exec>::Arrival Redistribution<T, Exec>::enter(const Exec& exec, const Communicator& comm,
                                                                         const Tensor<const T***, Exec>& in,
                                                                         const Tensor<T*, Exec>& sequence_buffer,
                                                                         const Tensor<T*, Exec>& heads_buffer) const {
  const Kokkos::Profiling::ScopedRegion region(label<T, Exec>("krait::redistribution::enter"));
  constexpr const char* function = "krait::Redistribution::enter";
  layout_.require_match(function, comm.place());
  require_shard(function, "in", extents(in));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  require_buffer(function, "heads_buffer", heads_buffer, heads_buffer_size());
  if (passthrough_) return {in, Request()};
  const std::int64_t shift = sum_before(heads_counts_, layout_.rank()) - sum_before(sequence_counts_, layout_.rank());
  copy_columns(exec, label<T, Exec>("krait::redistribution::pack"), in, 0, sequence_buffer.data(),
               {heads_buffer.data(), shift, first_own_piece_, first_own_piece_ + own_pieces_});
  return {heads_view(heads_buffer),
          comm::all_to_all_v(exec, comm, used<Exec>(Tensor<const T*, Exec>(sequence_buffer), sequence_counts_),
                             sequence_counts_, used<Exec>(heads_buffer, heads_counts_), heads_counts_,
                             comm::OwnBlock::in_place)};
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::pack(const Exec& exec, const Tensor<const T***, Exec>& in,
                                   const Tensor<T*, Exec>& sequence_buffer) const {
  const std::string name = label<T, Exec>("krait::redistribution::pack");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::pack";
  require_shard(function, "in", extents(in));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  copy_columns(exec, name, in, 0, sequence_buffer.data(), {});
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::pack_columns(const Exec& exec, const Tensor<const T***, Exec>& in,
                                           std::int64_t first_column, const Tensor<T*, Exec>& sequence_buffer) const {
  const std::string name = label<T, Exec>("krait::redistribution::pack_columns");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::pack_columns";
  const std::vector<std::int64_t> given = extents(in);
  KRAIT_REQUIRE(ShapeError, given[0] == rows_ && given[1] == layout_.local_length(), function, ": in has extents ",
                given, ", expected ", rows_, " rows and ", layout_.local_length(), " local tokens for the ",
                layout_.description());
  KRAIT_REQUIRE(ShapeError, first_column >= 0 && first_column + given[2] <= width(), function, ": in has columns [",
                first_column, ", ", first_column + given[2], "), but a row has ", width());
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  copy_columns(exec, name, in, first_column, sequence_buffer.data(), {});
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::copy_columns(const Exec& exec, const std::string& name,
                                           const Tensor<const T***, Exec>& in, std::int64_t first_column,
                                           T* sequence_buffer, const impl::OtherBuffer<T>& other) const {
  if (passthrough_) return;
  using Copy = impl::BufferCopy<T, Exec>;
  impl::run_copy(name, exec,
                 Copy{pieces_, impl::TokenRows<const T>::of(in), sequence_buffer, other, rows_, first_column,
                      static_cast<std::int64_t>(in.extent(2))},
                 layout_.local_length() * rows_, bytes_of<T>(in));
}

template <Scalar T, class Exec>
Request Redistribution<T, Exec>::send_to_heads(const Exec& exec, const Communicator& comm,
                                               const Tensor<const T*, Exec>& sequence_buffer,
                                               const Tensor<T*, Exec>& heads_buffer) const {
  constexpr const char* function = "krait::Redistribution::send_to_heads";
  layout_.require_match(function, comm.place());
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  require_buffer(function, "heads_buffer", heads_buffer, heads_buffer_size());
  if (passthrough_) return {};
  return comm::all_to_all_v(exec, comm, used<Exec>(sequence_buffer, sequence_counts_), sequence_counts_,
                            used<Exec>(heads_buffer, heads_counts_), heads_counts_);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::to_sequential(const Exec& exec, const Tensor<const T***, Exec>& heads,
                                            const Tensor<T***, Exec>& out) const {
  const std::string name = label<T, Exec>("krait::redistribution::to_sequential");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::to_sequential";
  require_heads(function, "heads", extents(heads));
  require_heads(function, "out", extents(out));
  permute(exec, name, heads, out, false);
}

template <Scalar T, class Exec>
Tensor<T***, Exec> Redistribution<T, Exec>::leave_target(const Tensor<T***, Exec>& out,
                                                         const Tensor<T*, Exec>& heads_buffer) const {
  require_shard("krait::Redistribution::leave_target", "out", extents(out));
  return passthrough_ ? out : heads_view(heads_buffer);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::from_sequential(const Exec& exec, const Tensor<const T***, Exec>& in,
                                              const Tensor<T***, Exec>& heads) const {
  const std::string name = label<T, Exec>("krait::redistribution::from_sequential");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::from_sequential";
  require_heads(function, "in", extents(in));
  require_heads(function, "heads", extents(heads));
  permute(exec, name, in, heads, true);
}

template <Scalar T, class Exec>
Request Redistribution<T, Exec>::send_to_sequence(const Exec& exec, const Communicator& comm,
                                                  const Tensor<const T*, Exec>& heads_buffer,
                                                  const Tensor<T*, Exec>& sequence_buffer) const {
  constexpr const char* function = "krait::Redistribution::send_to_sequence";
  layout_.require_match(function, comm.place());
  require_buffer(function, "heads_buffer", heads_buffer, heads_buffer_size());
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  if (passthrough_) return {};
  return comm::all_to_all_v(exec, comm, used<Exec>(heads_buffer, heads_counts_), heads_counts_,
                            used<Exec>(sequence_buffer, sequence_counts_), sequence_counts_);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::unpack(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                                     const Tensor<T***, Exec>& out) const {
  const std::string name = label<T, Exec>("krait::redistribution::unpack");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::unpack";
  KRAIT_REQUIRE(ConfigError, partition_, function,
                ": the sections do not give every column to exactly one rank, so there is no way back");
  require_shard(function, "out", extents(out));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  sum_columns(exec, name, sequence_buffer, out, true);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::unpack_part(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                                          const Tensor<T***, Exec>& out) const {
  const std::string name = label<T, Exec>("krait::redistribution::unpack_part");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::unpack_part";
  KRAIT_REQUIRE(ConfigError, disjoint_, function,
                ": the sections give a column to several ranks, so there is no way back");
  require_shard(function, "out", extents(out));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  sum_columns(exec, name, sequence_buffer, out, false);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::unpack_sum(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                                         const Tensor<T***, Exec>& out) const {
  const std::string name = label<T, Exec>("krait::redistribution::unpack_sum");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::unpack_sum";
  require_shard(function, "out", extents(out));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  sum_columns(exec, name, sequence_buffer, out, true);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::unpack_sum_part(const Exec& exec, const Tensor<const T*, Exec>& sequence_buffer,
                                              const Tensor<T***, Exec>& out) const {
  const std::string name = label<T, Exec>("krait::redistribution::unpack_sum_part");
  const Kokkos::Profiling::ScopedRegion region(name);
  constexpr const char* function = "krait::Redistribution::unpack_sum_part";
  require_shard(function, "out", extents(out));
  require_buffer(function, "sequence_buffer", sequence_buffer, sequence_buffer_size());
  sum_columns(exec, name, sequence_buffer, out, false);
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::sum_columns(const Exec& exec, const std::string& name,
                                          const Tensor<const T*, Exec>& sequence_buffer, const Tensor<T***, Exec>& out,
                                          bool clear) const {
  if (passthrough_) return;
  using Sum = impl::BufferSum<T, Exec>;
  impl::run_copy(name, exec,
                 Sum{sum_pieces_, sum_sources_, impl::TokenRows<T>::of(out), sequence_buffer.data(), rows_, clear},
                 layout_.local_length() * rows_, bytes_of<T>(out));
}

template <Scalar T, class Exec>
Tensor<T***, Exec> Redistribution<T, Exec>::heads_view(const Tensor<T*, Exec>& heads_buffer) const {
  require_buffer("krait::Redistribution::heads_view", "heads_buffer", heads_buffer, heads_buffer_size());
  const std::int64_t width = local_width();
  return make_tensor<T***, Exec, 3>(heads_buffer.data(), {rows_, layout_.length(), width}, {width, rows_ * width, 1});
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::permute(const Exec& exec, const std::string& name, const Tensor<const T***, Exec>& from,
                                      const Tensor<T***, Exec>& to, bool to_places) const {
  const std::int64_t block = std::min(std::max<std::int64_t>(local_width(), 1), impl::longest_piece<T, Exec>);
  using Copy = impl::TokenPermutation<T, Exec>;
  impl::run_copy(name, exec,
                 Copy{layout_.template index_map<typename Exec::memory_space>(), impl::TokenRows<T>::of(to),
                      impl::TokenRows<const T>::of(from), rows_, local_width(), block, to_places},
                 layout_.length() * rows_, bytes_of<T>(to));
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::require_shard(const char* function, const char* name,
                                            const std::vector<std::int64_t>& given) const {
  const std::vector<std::int64_t> wanted{rows_, layout_.local_length(), width()};
  KRAIT_REQUIRE(ShapeError, given == wanted, function, ": ", name, " has extents ", given,
                ", expected (rows, local tokens, columns) = ", wanted, " for the ", layout_.description());
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::require_heads(const char* function, const char* name,
                                            const std::vector<std::int64_t>& given) const {
  const std::vector<std::int64_t> wanted{rows_, layout_.length(), local_width()};
  KRAIT_REQUIRE(ShapeError, given == wanted, function, ": ", name, " has extents ", given,
                ", expected (rows, tokens, local columns) = ", wanted, " for the ", layout_.description());
}

template <Scalar T, class Exec>
void Redistribution<T, Exec>::require_buffer(const char* function, const char* name,
                                             const Tensor<const T*, Exec>& buffer, std::int64_t needed) const {
  const auto size = static_cast<std::int64_t>(buffer.extent(0));
  KRAIT_REQUIRE(CapacityError, size >= needed, function, ": ", name, " has ", size, " elements, ", needed,
                " are needed");
  KRAIT_REQUIRE(ShapeError, size <= 1 || buffer.stride(0) == 1, function, ": ", name, " must have unit stride, has ",
                buffer.stride(0));
}

#define KRAIT_INSTANTIATE(T, EXEC) template class Redistribution<T, EXEC>;
KRAIT_FOR_EACH_SCALAR_AND_SPACE(KRAIT_INSTANTIATE)
#undef KRAIT_INSTANTIATE

}  // namespace krait
