// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/counters.hpp>

#include <iomanip>
#include <ostream>

namespace krait {

const char* name(CommOperation operation) {
  static constexpr std::array<const char*, comm_operations> names = {
      "send",         "recv",       "shift",          "all_to_all", "all_to_all_v",   "all_gather",
      "all_gather_v", "all_reduce", "reduce_scatter", "broadcast",  "exclusive_scan", "barrier"};
  return names[static_cast<std::size_t>(operation)];
}

OperationCounters& OperationCounters::operator+=(const OperationCounters& other) {
  calls += other.calls;
  messages_sent += other.messages_sent;
  bytes_sent += other.bytes_sent;
  messages_received += other.messages_received;
  bytes_received += other.bytes_received;
  seconds_waited += other.seconds_waited;
  return *this;
}

bool operator==(const OperationCounters& a, const OperationCounters& b) {
  return a.calls == b.calls && a.messages_sent == b.messages_sent && a.bytes_sent == b.bytes_sent &&
         a.messages_received == b.messages_received && a.bytes_received == b.bytes_received;
}

OperationCounters CommCounters::total() const {
  OperationCounters sum;
  for (const OperationCounters& counters : per_operation_) sum += counters;
  return sum;
}

std::ostream& operator<<(std::ostream& stream, const CommCounters& counters) {
  const auto column = [&stream](const auto& value) { stream << std::setw(16) << value; };
  stream << std::left << std::setw(16) << "operation" << std::right;
  for (const char* title :
       {"calls", "messages sent", "bytes sent", "messages recvd", "bytes received", "seconds waited"})
    column(title);
  stream << '\n';
  for (std::size_t i = 0; i < comm_operations; ++i) {
    const auto operation = static_cast<CommOperation>(i);
    const OperationCounters& row = counters[operation];
    if (row.calls == 0) continue;
    stream << std::left << std::setw(16) << name(operation) << std::right;
    for (const std::int64_t value :
         {row.calls, row.messages_sent, row.bytes_sent, row.messages_received, row.bytes_received}) {
      column(value);
    }
    column(row.seconds_waited);
    stream << '\n';
  }
  return stream;
}

}  // namespace krait
