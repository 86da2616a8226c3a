// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Runs: the stretches of a row in which convolution and state carry over. The operators know documents only in this
/// form; where a run begins, the state starts afresh (from its own initial state, or zero).

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include <krait/core/device_table.hpp>

namespace krait {

/// Tokens [begin, end) of one row that share a state. `state` is the index of its initial and final state, or no_state:
/// then the run starts from zero, its final state is not stored, and neither has a gradient.
struct Run {
  static constexpr std::int64_t no_state = -1;

  std::int64_t row = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t state = 0;

  [[nodiscard]] KOKKOS_FUNCTION bool has_state() const { return state != no_state; }
};

/// The runs of a batch of rows, on the host and, built at first use, on the device. A cheap handle: copies share the
/// tables. Must end before Kokkos::finalize.
///
/// Tokens that belong to no run are padding: operators write zeros there and nothing reads them.
class SequenceRuns {
 public:
  /// Device tables. `runs` is sorted by row and begin; the runs of row b are [offsets(b), offsets(b + 1)).
  template <class MemorySpace>
  struct Table {
    Kokkos::View<const Run*, MemorySpace> runs;
    Kokkos::View<const std::int64_t*, MemorySpace> offsets;
  };

  /// One run per row, over the whole row; run b has state b.
  static SequenceRuns whole_rows(std::int64_t rows, std::int64_t length);

  /// \param runs    sorted by (row, begin), not overlapping; empty runs are allowed (their final state is their
  ///                initial one)
  /// \param states  number of initial (and final) states; every run's `state` is below it, or Run::no_state
  /// \throws LayoutError when the runs are unsorted, overlap, leave [0, length) or name another state
  SequenceRuns(std::int64_t rows, std::int64_t length, std::vector<Run> runs, std::int64_t states);

  [[nodiscard]] std::int64_t rows() const { return data_->rows; }
  [[nodiscard]] std::int64_t length() const { return data_->length; }
  [[nodiscard]] std::int64_t states() const { return data_->states; }
  [[nodiscard]] const std::vector<Run>& host() const { return data_->runs; }
  /// Index of the first run of each row, and the number of runs at the end.
  [[nodiscard]] const std::vector<std::int64_t>& host_offsets() const { return data_->offsets; }

  template <class MemorySpace>
  [[nodiscard]] Table<MemorySpace> on() const {
    return data_->device.get<MemorySpace>([this] {
      return Table<MemorySpace>{impl::upload_table<MemorySpace>("krait::runs", data_->runs),
                                impl::upload_table<MemorySpace>("krait::run_offsets", data_->offsets)};
    });
  }

  /// How many device tables were built, for tests.
  [[nodiscard]] std::size_t device_builds() const { return data_->device.builds(); }

 private:
  struct Data {
    std::int64_t rows = 0;
    std::int64_t length = 0;
    std::int64_t states = 0;
    std::vector<Run> runs;
    std::vector<std::int64_t> offsets;
    mutable impl::PerSpace device;
  };

  std::shared_ptr<const Data> data_;
};

}  // namespace krait
