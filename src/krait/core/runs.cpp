// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/core/runs.hpp>

#include <krait/core/error.hpp>
#include <utility>

namespace krait {

SequenceRuns SequenceRuns::whole_rows(std::int64_t rows, std::int64_t length) {
  std::vector<Run> runs;
  for (std::int64_t row = 0; row < rows; ++row) runs.push_back({row, 0, length, row});
  return {rows, length, std::move(runs), rows};
}

SequenceRuns::SequenceRuns(std::int64_t rows, std::int64_t length, std::vector<Run> runs, std::int64_t states) {
  KRAIT_REQUIRE(LayoutError, rows >= 0 && length >= 0 && states >= 0,
                "krait::SequenceRuns: rows, length and states must not be negative, got ", rows, ", ", length, ", ",
                states);
  auto data = std::make_shared<Data>();
  data->rows = rows;
  data->length = length;
  data->states = states;
  data->offsets.assign(static_cast<std::size_t>(rows) + 1, 0);
  std::int64_t previous_row = 0;
  std::int64_t previous_end = 0;
  for (const Run& run : runs) {
    KRAIT_REQUIRE(LayoutError, run.row >= 0 && run.row < rows, "krait::SequenceRuns: a run names row ", run.row, " of ",
                  rows);
    if (run.row != previous_row) previous_end = 0;
    KRAIT_REQUIRE(LayoutError, run.row >= previous_row && run.begin >= previous_end,
                  "krait::SequenceRuns: runs must be sorted by row and token and must not overlap; run [", run.begin,
                  ", ", run.end, ") of row ", run.row, " follows token ", previous_end, " of row ", previous_row);
    KRAIT_REQUIRE(LayoutError, run.begin <= run.end && run.end <= length, "krait::SequenceRuns: run [", run.begin, ", ",
                  run.end, ") does not lie in [0, ", length, ")");
    KRAIT_REQUIRE(LayoutError, run.state >= Run::no_state && run.state < states, "krait::SequenceRuns: run [",
                  run.begin, ", ", run.end, ") names state ", run.state, " of ", states);
    previous_row = run.row;
    previous_end = run.end;
    ++data->offsets[static_cast<std::size_t>(run.row) + 1];
  }
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) data->offsets[row + 1] += data->offsets[row];
  data->runs = std::move(runs);
  data_ = std::move(data);
}

}  // namespace krait
