// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/layout/section_table.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

#include <krait/core/error.hpp>

namespace krait {

SectionTable::SectionTable(std::vector<Section> sections) : sections_(std::move(sections)) {
  KRAIT_REQUIRE(ConfigError, !sections_.empty() && !sections_.front().of_rank.empty(),
                "krait::SectionTable: there must be a section and a rank");
  const std::size_t ranks = sections_.front().of_rank.size();
  local_width_.assign(ranks, 0);
  for (const Section& section : sections_) {
    KRAIT_REQUIRE(ConfigError, section.units >= 0 && section.unit_width >= 1, "krait::SectionTable: section ",
                  section.name, " has ", section.units, " units of width ", section.unit_width,
                  "; expected 0 or more, of width 1 or more");
    KRAIT_REQUIRE(ConfigError, section.of_rank.size() == ranks, "krait::SectionTable: section ", section.name,
                  " names ", section.of_rank.size(), " ranks, section ", sections_.front().name, " names ", ranks);
    for (std::size_t r = 0; r < ranks; ++r) {
      const UnitRange& range = section.of_rank[r];
      KRAIT_REQUIRE(ConfigError, range.begin >= 0 && range.count >= 0 && range.begin + range.count <= section.units,
                    "krait::SectionTable: rank ", r, " takes units [", range.begin, ", ", range.begin + range.count,
                    ") of section ", section.name, ", which has ", section.units);
      local_width_[r] += range.count * section.unit_width;
    }
    width_ += section.units * section.unit_width;
  }
}

std::int64_t SectionTable::local_begin(std::size_t section, int rank) const {
  std::int64_t begin = 0;
  for (std::size_t s = 0; s < section; ++s) {
    begin += sections_[s].of_rank[static_cast<std::size_t>(rank)].count * sections_[s].unit_width;
  }
  return begin;
}

std::vector<SectionTable::Piece> SectionTable::pieces(int rank) const {
  std::vector<Piece> result;
  std::int64_t section_begin = 0;
  std::int64_t local = 0;
  for (const Section& section : sections_) {
    const UnitRange& range = section.of_rank[static_cast<std::size_t>(rank)];
    const std::int64_t column = section_begin + range.begin * section.unit_width;
    const std::int64_t count = range.count * section.unit_width;
    section_begin += section.units * section.unit_width;
    if (count == 0) continue;
    if (!result.empty() && result.back().column + result.back().count == column) {
      result.back().count += count;
    } else {
      result.push_back({column, local, count});
    }
    local += count;
  }
  return result;
}

std::vector<std::int64_t> SectionTable::columns(int rank) const {
  std::vector<std::int64_t> result(static_cast<std::size_t>(local_width(rank)));
  for (const Piece& piece : pieces(rank)) {
    std::iota(result.begin() + piece.local, result.begin() + piece.local + piece.count, piece.column);
  }
  return result;
}

bool SectionTable::is_disjoint() const {
  std::vector<Piece> all;
  for (int r = 0; r < ranks(); ++r) {
    const std::vector<Piece> of_rank = pieces(r);
    all.insert(all.end(), of_rank.begin(), of_rank.end());
  }
  std::sort(all.begin(), all.end(), [](const Piece& a, const Piece& b) { return a.column < b.column; });
  for (std::size_t i = 1; i < all.size(); ++i)
    if (all[i].column < all[i - 1].column + all[i - 1].count) return false;
  return true;
}

bool SectionTable::is_partition() const {
  return is_disjoint() && std::accumulate(local_width_.begin(), local_width_.end(), std::int64_t{0}) == width_;
}

}  // namespace krait
