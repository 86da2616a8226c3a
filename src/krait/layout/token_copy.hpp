// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The copying and adding kernels of the redistribution. A token row is copied in stretches of columns, so that the
/// inner loop is a plain copy on a host, and on a GPU accesses of 16 bytes where both sides are aligned. All offsets
/// are 64-bit, whatever the Views' own index type.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdint>
#include <string>

#include <krait/core/kokkos_shims.hpp>
#include <krait/core/scalars.hpp>
#include <krait/layout/buffer_piece.hpp>
#include <krait/tile/pack.hpp>
#include <krait/tile/past_cache.hpp>

namespace krait::impl {

/// Address arithmetic of a tensor (row, token, column).
template <class T>
struct TokenRows {
  T* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t column_stride = 1;

  template <class View>
  static TokenRows of(const View& view) {
    return {view.data(), static_cast<std::int64_t>(view.stride(0)), static_cast<std::int64_t>(view.stride(1)),
            static_cast<std::int64_t>(view.stride(2))};
  }
  KOKKOS_FUNCTION T* at(std::int64_t row, std::int64_t token, std::int64_t column) const {
    return data + row * row_stride + token * token_stride + column * column_stride;
  }
};

/// Lanes of a GPU that copy a stretch, and the packs that each of them has in flight.
inline constexpr int copy_lanes = 32;
inline constexpr int copy_packs = 4;

/// Longest stretch that one vector of lanes copies. On a GPU long ones are cut, so that all threads of a team have
/// work.
template <class T, class Exec>
inline constexpr std::int64_t longest_piece =
    tile::works_in_packs<Exec> ? std::int64_t{copy_lanes} * copy_packs * tile::pack_size<T> : INT64_MAX;

/// Lanes of one thread of a team, or nothing on a host, where the compiler makes the vectors.
struct OneLane {
  bool past_cache;  ///< what is written does not fit the caches, and need not go through them
};

template <class T>
KOKKOS_FUNCTION void copy_columns(const OneLane& lanes, T* KOKKOS_RESTRICT to, std::int64_t to_stride,
                                  const T* KOKKOS_RESTRICT from, std::int64_t from_stride, std::int64_t count) {
  if (to_stride == 1 && from_stride == 1 && lanes.past_cache) {
    tile::copy_past_cache(from, to, count);
  } else if (to_stride == 1 && from_stride == 1) {
    for (std::int64_t k = 0; k < count; ++k) to[k] = from[k];
  } else {
    for (std::int64_t k = 0; k < count; ++k) to[k * to_stride] = from[k * from_stride];
  }
}

/// to[k] = from[k] for the packs of a stretch whose two sides begin at whole packs. Each lane loads several of them
/// before it stores the first.
template <class Member, class T>
KOKKOS_FUNCTION void copy_packs_of(const Member& team, T* to, const T* from, std::int64_t packs) {
  using Pack = tile::Pack<T, tile::pack_size<T>>;
  for (std::int64_t begin = 0; begin < packs; begin += std::int64_t{copy_lanes} * copy_packs) {
    Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, copy_lanes), [&](const int lane) {
      Pack moved[copy_packs];
      const T* const first = from + (begin + lane) * tile::pack_size<T>;
      T* const target = to + (begin + lane) * tile::pack_size<T>;
      constexpr int next = copy_lanes * tile::pack_size<T>;
      const auto there = [&](int i) { return begin + lane + std::int64_t{i} * copy_lanes < packs; };
      KRAIT_UNROLLED
      for (int i = 0; i < copy_packs; ++i) {
        if (there(i)) moved[i] = Pack::load(first + i * next);
      }
      KRAIT_UNROLLED
      for (int i = 0; i < copy_packs; ++i) {
        if (there(i)) moved[i].store(target + i * next);
      }
    });
  }
}

template <class Member, class T>
KOKKOS_FUNCTION void copy_columns(const Member& team, T* KOKKOS_RESTRICT to, std::int64_t to_stride,
                                  const T* KOKKOS_RESTRICT from, std::int64_t from_stride, std::int64_t count) {
  std::int64_t done = 0;
  if (to_stride == 1 && from_stride == 1 && tile::is_aligned(to) && tile::is_aligned(from)) {
    const std::int64_t packs = count / tile::pack_size<T>;
    copy_packs_of(team, to, from, packs);
    done = packs * tile::pack_size<T>;
  }
  Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, done, count),
                       [&](const std::int64_t k) { to[k * to_stride] = from[k * from_stride]; });
}

/// From a tensor to a buffer of pieces, some of which may go to another buffer. The tensor has columns
/// [first, first + width) of the rows that the pieces are made of. Token row q is row q % rows of token q / rows.
template <class T, class Exec>
struct BufferCopy {
  Kokkos::View<const BufferPiece*, typename Exec::memory_space> pieces;
  TokenRows<const T> from;
  T* buffer;
  OtherBuffer<T> other;
  std::int64_t rows;
  std::int64_t first;
  std::int64_t width;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t size() const { return static_cast<std::int64_t>(pieces.extent(0)); }

  template <class Lanes>
  KOKKOS_FUNCTION void copy(const Lanes& lanes, std::int64_t q, std::int64_t p) const {
    const BufferPiece piece = pieces(p);
    const std::int64_t begin = piece.column > first ? piece.column : first;
    const std::int64_t piece_end = piece.column + piece.count;
    const std::int64_t end = piece_end < first + width ? piece_end : first + width;
    if (begin >= end) return;
    const std::int64_t place = piece.offset + q * piece.stride + (begin - piece.column);
    copy_columns(lanes, other.begin <= p && p < other.end ? other.data + (place + other.shift) : buffer + place, 1,
                 from.at(q % rows, q / rows, begin - first), from.column_stride, end - begin);
  }
};

/// Sums that are taken at once on a host, so that the compiler makes vectors of them.
inline constexpr std::int64_t sums_at_once = 64;

/// to[k * stride] = the sum of buffer[sources(s).offset + q * sources(s).stride + k] over s, in order, rounded once.
template <class T, class Sources>
KOKKOS_FUNCTION void add_columns(const OneLane& /*lanes*/, T* to, std::int64_t to_stride, const T* buffer,
                                 const Sources& sources, const SumPiece& piece, std::int64_t q) {
  using A = accumulator_t<T>;
  for (std::int64_t begin = 0; begin < piece.count; begin += sums_at_once) {
    const std::int64_t count = piece.count - begin < sums_at_once ? piece.count - begin : sums_at_once;
    A sums[sums_at_once] = {};
    for (std::int64_t s = 0; s < piece.sources; ++s) {
      const SumSource source = sources(piece.first_source + s);
      const T* const from = buffer + source.offset + q * source.stride + begin;
      for (std::int64_t k = 0; k < count; ++k) sums[k] += static_cast<A>(from[k]);
    }
    for (std::int64_t k = 0; k < count; ++k) to[(begin + k) * to_stride] = static_cast<T>(sums[k]);
  }
}

template <class Member, class T, class Sources>
KOKKOS_FUNCTION void add_columns(const Member& team, T* to, std::int64_t to_stride, const T* buffer,
                                 const Sources& sources, const SumPiece& piece, std::int64_t q) {
  using A = accumulator_t<T>;
  Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, piece.count), [&](const std::int64_t k) {
    A sum = 0;
    for (std::int64_t s = 0; s < piece.sources; ++s) {
      const SumSource source = sources(piece.first_source + s);
      sum += static_cast<A>(buffer[source.offset + q * source.stride + k]);
    }
    to[k * to_stride] = static_cast<T>(sum);
  });
}

/// From a buffer to a tensor: a column that lies in several places of the buffer is their sum, one that lies in none
/// is 0, or stays as it is. Token row q is row q % rows of token q / rows.
template <class T, class Exec>
struct BufferSum {
  Kokkos::View<const SumPiece*, typename Exec::memory_space> pieces;
  Kokkos::View<const SumSource*, typename Exec::memory_space> sources;
  TokenRows<T> to;
  const T* buffer;
  std::int64_t rows;
  bool clear;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t size() const { return static_cast<std::int64_t>(pieces.extent(0)); }

  template <class Lanes>
  KOKKOS_FUNCTION void copy(const Lanes& lanes, std::int64_t q, std::int64_t p) const {
    const SumPiece piece = pieces(p);
    if (piece.sources == 0 && !clear) return;
    T* const place = to.at(q % rows, q / rows, piece.column);
    if (piece.sources == 1) {
      const SumSource source = sources(piece.first_source);
      copy_columns(lanes, place, to.column_stride, buffer + source.offset + q * source.stride, 1, piece.count);
    } else {
      add_columns(lanes, place, to.column_stride, buffer, sources, piece, q);
    }
  }
};

/// Between two tensors of whole rows: token t of `to` (or the one at places(t)) from that at places(t) of `from` (or
/// t).
template <class T, class Exec>
struct TokenPermutation {
  Kokkos::View<const std::int64_t*, typename Exec::memory_space> places;
  TokenRows<T> to;
  TokenRows<const T> from;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t block;  ///< columns that are copied at once
  bool to_places;

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t size() const { return (width + block - 1) / block; }

  template <class Lanes>
  KOKKOS_FUNCTION void copy(const Lanes& lanes, std::int64_t q, std::int64_t p) const {
    const std::int64_t row = q % rows;
    const std::int64_t token = q / rows;
    const std::int64_t place = places(token);
    const std::int64_t column = p * block;
    copy_columns(lanes, to.at(row, to_places ? place : token, column), to.column_stride,
                 from.at(row, to_places ? token : place, column), from.column_stride,
                 block < width - column ? block : width - column);
  }
};

/// Runs a copy over `items` token rows.
template <class Exec, class Copy>
struct CopyKernel {
  using Member = typename Kokkos::TeamPolicy<Exec>::member_type;
  Copy copy;
  std::int64_t items;
  std::int64_t items_per_team;
  bool past_cache;

  KOKKOS_FUNCTION void operator()(const std::int64_t q) const {
    for (std::int64_t p = 0; p < copy.size(); ++p) copy.copy(OneLane{past_cache}, q, p);
    if (past_cache) tile::finish_past_cache();
  }

  KOKKOS_FUNCTION void operator()(const Member& team) const {
    const std::int64_t first = team.league_rank() * items_per_team;
    const std::int64_t here = items_per_team < items - first ? items_per_team : items - first;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, here * copy.size()),
                         [&](const std::int64_t i) { copy.copy(team, first + i / copy.size(), i % copy.size()); });
  }
};

/// \param bytes  that are written
template <class Exec, class Copy>
void run_copy(const std::string& label, const Exec& exec, const Copy& copy, std::int64_t items, std::int64_t bytes) {
  if (items == 0 || copy.size() == 0) return;
  if constexpr (!tile::works_in_packs<Exec>) {
    Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, items),
                         CopyKernel<Exec, Copy>{copy, items, 1, bytes >= tile::past_cache_bytes});
  } else {
    constexpr std::int64_t most_teams = std::int64_t{1} << 30;  // a league is counted in int
    const int threads = tile::team_size_for(exec, 8);
    constexpr int lanes = is_host_execution<Exec> ? 1 : copy_lanes;
    const std::int64_t per_team = std::max<std::int64_t>(4, (items + most_teams - 1) / most_teams);
    const auto teams = static_cast<int>((items + per_team - 1) / per_team);
    Kokkos::parallel_for(label, Kokkos::TeamPolicy<Exec>(exec, teams, threads, lanes),
                         CopyKernel<Exec, Copy>{copy, items, per_team, false});
  }
}

}  // namespace krait::impl
