// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What a communicator has moved so far, per operation, counted when a message starts, and how long it was waited for.
/// On this rank.

#include <array>
#include <cstddef>
#include <cstdint>
#include <iosfwd>

namespace krait {

/// The operations that are counted, and named in labels.
enum class CommOperation {
  send,
  recv,
  shift,
  all_to_all,
  all_to_all_v,
  all_gather,
  all_gather_v,
  all_reduce,
  reduce_scatter,
  broadcast,
  exclusive_scan,
  barrier
};
inline constexpr std::size_t comm_operations = 12;

/// "send", "all_to_all_v", ...
const char* name(CommOperation operation);

/// Messages between different ranks: what a rank hands to itself is a copy and not counted, and an empty message does
/// not exist. A message that is split because it is too large for MPI counts once.
struct OperationCounters {
  std::int64_t calls = 0;
  std::int64_t messages_sent = 0;
  std::int64_t bytes_sent = 0;
  std::int64_t messages_received = 0;
  std::int64_t bytes_received = 0;
  /// Wall-clock time that the host spent in waits (Request::wait(), wait_on() and destructors, barrier()) before
  /// everything had arrived, with the steps of this and other operations that were taken meanwhile. Not the time in
  /// which work on the device is waited for.
  double seconds_waited = 0;

  OperationCounters& operator+=(const OperationCounters& other);
  /// Of what was counted; times are never the same.
  friend bool operator==(const OperationCounters& a, const OperationCounters& b);
};

/// Counters of every operation of one communicator.
class CommCounters {
 public:
  [[nodiscard]] const OperationCounters& operator[](CommOperation operation) const {
    return per_operation_[static_cast<std::size_t>(operation)];
  }
  [[nodiscard]] OperationCounters& operator[](CommOperation operation) {
    return per_operation_[static_cast<std::size_t>(operation)];
  }
  /// Sum over the operations.
  [[nodiscard]] OperationCounters total() const;

  friend bool operator==(const CommCounters&, const CommCounters&) = default;

 private:
  std::array<OperationCounters, comm_operations> per_operation_{};
};

/// A small table: one line for each operation that was called.
std::ostream& operator<<(std::ostream& stream, const CommCounters& counters);

}  // namespace krait
