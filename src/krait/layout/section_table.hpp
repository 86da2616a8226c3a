// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Which columns of a row each rank works on, for any packing of channels.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace krait {

/// Units [begin, begin + count) of a section.
struct UnitRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

/// Neighbouring columns of one meaning, in units that stay together: x in heads of width head_dim, B in groups of width
/// d_state, dt in heads of width 1.
struct Section {
  std::string name;
  std::int64_t units = 0;
  std::int64_t unit_width = 1;
  /// For every rank the units it works on. Ranges of several ranks may overlap: each of them gets these columns.
  std::vector<UnitRange> of_rank;
};

/// The sections of a row one behind the other. A rank's local row has the same sections in the same order, cut to its
/// units.
class SectionTable {
 public:
  /// Consecutive columns [column, column + count), found at `local` in a rank's own row.
  struct Piece {
    std::int64_t column = 0;
    std::int64_t local = 0;
    std::int64_t count = 0;
  };

  /// \throws ConfigError when there is no section, sections name different numbers of ranks, or a range leaves its
  ///                     section
  explicit SectionTable(std::vector<Section> sections);

  [[nodiscard]] int ranks() const { return static_cast<int>(sections_.front().of_rank.size()); }
  [[nodiscard]] const std::vector<Section>& sections() const { return sections_; }
  /// Columns of a whole row.
  [[nodiscard]] std::int64_t width() const { return width_; }
  /// Columns of a rank's row.
  [[nodiscard]] std::int64_t local_width(int rank) const { return local_width_[static_cast<std::size_t>(rank)]; }
  /// Local column at which a section begins in a rank's row.
  [[nodiscard]] std::int64_t local_begin(std::size_t section, int rank) const;
  /// The whole row's column of every local column.
  [[nodiscard]] std::vector<std::int64_t> columns(int rank) const;
  /// The same as stretches of consecutive columns; neighbours are merged and empty ones left out.
  [[nodiscard]] std::vector<Piece> pieces(int rank) const;
  /// True when no column belongs to more than one rank, so that the way back is a mere interleaving.
  [[nodiscard]] bool is_disjoint() const;
  /// True when, beside that, every column belongs to a rank.
  [[nodiscard]] bool is_partition() const;

 private:
  std::vector<Section> sections_;
  std::int64_t width_ = 0;
  std::vector<std::int64_t> local_width_;
};

}  // namespace krait
