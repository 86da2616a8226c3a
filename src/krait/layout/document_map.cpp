// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/layout/document_map.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <krait/core/error.hpp>
#include <krait/layout/boundaries.hpp>

namespace krait {

namespace {

/// Adds the documents of one row; `real_lengths` may be empty (nothing is padding).
void add_row(const std::string& function, std::vector<Run>& runs, std::int64_t row,
             const std::vector<std::int64_t>& cu_seqlens, const std::vector<std::int64_t>& real_lengths,
             std::int64_t length) {
  impl::require_boundaries(function, cu_seqlens);
  KRAIT_REQUIRE(LayoutError, cu_seqlens.back() <= length, function, ": cu_seqlens ends with ", cu_seqlens.back(),
                ", but row ", row, " has ", length, " tokens");
  for (std::size_t d = 0; d + 1 < cu_seqlens.size(); ++d) {
    const std::int64_t tokens = cu_seqlens[d + 1] - cu_seqlens[d];
    const std::int64_t real = real_lengths.empty() ? tokens : real_lengths[d];
    KRAIT_REQUIRE(LayoutError, real >= 0 && real <= tokens, function, ": document ", d, " has ", tokens,
                  " tokens, its real length is given as ", real);
    runs.push_back({row, cu_seqlens[d], cu_seqlens[d] + real, static_cast<std::int64_t>(runs.size())});
  }
  if (cu_seqlens.back() < length) {
    runs.push_back({row, cu_seqlens.back(), length, static_cast<std::int64_t>(runs.size())});
  }
}

SequenceRuns make_runs(std::int64_t rows, std::int64_t length, std::vector<Run> runs) {
  const auto states = static_cast<std::int64_t>(runs.size());
  return {rows, length, std::move(runs), states};
}

/// size == rows * length, also where the product would overflow.
bool has_entries(const std::vector<std::int32_t>& ids, std::int64_t rows, std::int64_t length) {
  const auto size = static_cast<std::int64_t>(ids.size());
  if (rows == 0 || length == 0) return size == 0;
  return size % length == 0 && size / length == rows;
}

bool is_empty(const Run& run) { return run.begin == run.end; }

std::vector<Run> without_empty(std::vector<Run> runs) {
  runs.erase(std::remove_if(runs.begin(), runs.end(), is_empty), runs.end());
  return runs;
}

bool same_tokens(const Run& a, const Run& b) { return a.row == b.row && a.begin == b.begin && a.end == b.end; }

}  // namespace

DocumentMap DocumentMap::whole_rows(std::int64_t rows, std::int64_t length) {
  return DocumentMap(SequenceRuns::whole_rows(rows, length));
}

DocumentMap DocumentMap::from_cu_seqlens(const std::vector<std::int64_t>& cu_seqlens, std::int64_t length) {
  std::vector<Run> runs;
  add_row("krait::DocumentMap::from_cu_seqlens", runs, 0, cu_seqlens, {}, length);
  return DocumentMap(make_runs(1, length, std::move(runs)));
}

DocumentMap DocumentMap::from_cu_seqlens(const std::vector<std::int64_t>& cu_seqlens,
                                         const std::vector<std::int64_t>& real_lengths, std::int64_t length) {
  const std::string function = "krait::DocumentMap::from_cu_seqlens";
  impl::require_boundaries(function, cu_seqlens);
  KRAIT_REQUIRE(LayoutError, real_lengths.size() + 1 == cu_seqlens.size(), function, ": ", real_lengths.size(),
                " real lengths for ", cu_seqlens.size() - 1, " documents");
  std::vector<Run> runs;
  add_row(function, runs, 0, cu_seqlens, real_lengths, length);
  return DocumentMap(make_runs(1, length, std::move(runs)));
}

DocumentMap DocumentMap::from_cu_seqlens_per_row(const std::vector<std::vector<std::int64_t>>& cu_seqlens,
                                                 std::int64_t length) {
  std::vector<Run> runs;
  for (std::size_t row = 0; row < cu_seqlens.size(); ++row) {
    add_row("krait::DocumentMap::from_cu_seqlens_per_row", runs, static_cast<std::int64_t>(row), cu_seqlens[row], {},
            length);
  }
  return DocumentMap(make_runs(static_cast<std::int64_t>(cu_seqlens.size()), length, std::move(runs)));
}

DocumentMap DocumentMap::from_seq_idx(const std::vector<std::int32_t>& seq_idx, std::int64_t rows,
                                      std::int64_t length) {
  KRAIT_REQUIRE(LayoutError, rows >= 0 && length >= 0 && has_entries(seq_idx, rows, length),
                "krait::DocumentMap::from_seq_idx: ", seq_idx.size(), " ids for ", rows, " rows of ", length,
                " tokens");
  std::vector<Run> runs;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int32_t* const id = seq_idx.data() + row * length;
    for (std::int64_t begin = 0; begin < length;) {
      std::int64_t end = begin + 1;
      while (end < length && id[end] == id[begin]) ++end;
      if (id[begin] >= 0) runs.push_back({row, begin, end, static_cast<std::int64_t>(runs.size())});
      begin = end;
    }
  }
  return DocumentMap(make_runs(rows, length, std::move(runs)));
}

std::int64_t DocumentMap::rows() const { return runs_.rows(); }
std::int64_t DocumentMap::length() const { return runs_.length(); }
std::int64_t DocumentMap::documents() const { return runs_.states(); }
const SequenceRuns& DocumentMap::runs() const { return runs_; }

std::vector<std::int32_t> DocumentMap::seq_idx() const {
  std::vector<std::int32_t> result(static_cast<std::size_t>(rows() * length()), -1);
  const auto& offsets = runs_.host_offsets();
  for (const Run& run : runs_.host()) {
    const auto row_begin = result.begin() + run.row * length();
    std::fill(row_begin + run.begin, row_begin + run.end,
              static_cast<std::int32_t>(run.state - offsets[static_cast<std::size_t>(run.row)]));
  }
  return result;
}

bool DocumentMap::same_resets(const DocumentMap& other) const {
  const std::vector<Run> mine = without_empty(runs_.host());
  const std::vector<Run> theirs = without_empty(other.runs_.host());
  return rows() == other.rows() && length() == other.length() &&
         std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end(), same_tokens);
}

void DocumentMap::require_agreement(const std::string& function, const std::vector<std::int32_t>& seq_idx) const {
  const std::vector<Run> mine = without_empty(runs_.host());
  const std::vector<Run> theirs = without_empty(from_seq_idx(seq_idx, rows(), length()).runs_.host());
  const auto [a, b] = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end(), same_tokens);
  if (a == mine.end() && b == theirs.end()) return;
  const auto text = [](auto run, auto end) {
    if (run == end) return std::string("no further document");
    return "document [" + std::to_string(run->begin) + ", " + std::to_string(run->end) + ") of row " +
           std::to_string(run->row);
  };
  KRAIT_REQUIRE(LayoutError, false, function, ": the boundaries give ", text(a, mine.end()), " where seq_idx gives ",
                text(b, theirs.end()));
}

void DocumentMap::require_match(const std::string& function, std::int64_t rows_wanted,
                                std::int64_t length_wanted) const {
  KRAIT_REQUIRE(LayoutError, rows() == rows_wanted && length() == length_wanted, function, ": the document map is for ",
                rows(), " rows of ", length(), " tokens, expected ", rows_wanted, " rows of ", length_wanted,
                " tokens");
}

void DocumentMap::require_match(const std::string& function, const SequenceLayout& layout) const {
  KRAIT_REQUIRE(LayoutError, length() == layout.length(), function, ": the document map is for rows of ", length(),
                " tokens, but this is the ", layout.description());
  if (layout.kind() != SequenceLayout::Kind::zigzag_docs) return;
  const std::vector<Slot>& slots = layout.slots();
  std::int64_t row = -1;
  auto slot = slots.begin();
  for (const Run& run : runs_.host()) {
    if (is_empty(run)) continue;
    if (run.row != row) slot = slots.begin();
    row = run.row;
    while (slot->end <= run.begin) ++slot;
    KRAIT_REQUIRE(LayoutError, run.begin == slot->begin && run.end <= slot->end, function, ": document [", run.begin,
                  ", ", run.end, ") of row ", run.row, " contradicts document [", slot->begin, ", ", slot->end,
                  ") of the ", layout.description());
  }
}

}  // namespace krait
