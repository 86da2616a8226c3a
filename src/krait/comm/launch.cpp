// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/launch.hpp>

#include <exception>
#include <functional>
#include <string>
#include <utility>

namespace krait::impl {
namespace {

std::string label(CommOperation operation) { return std::string("krait::comm::") + name(operation); }

}  // namespace

void throw_lost_failure(CommState& state) {
  if (!state.lost_failure) return;
  const std::exception_ptr failure = std::exchange(state.lost_failure, nullptr);
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    impl::fail<CommError>(std::source_location::current(),
                          "an earlier request of this communicator failed: ", error.what());
  }
}

void begin(CommState& state, CommOperation operation) {
  throw_lost_failure(state);
  ++state.counters[operation].calls;
}

void require_peer(const CommState& state, CommOperation operation, const char* argument, int peer) {
  KRAIT_REQUIRE(ConfigError, peer >= 0 && peer < state.place.size, label(operation), ": ", argument, " is ", peer,
                ", expected a rank from 0 to ", state.place.size - 1);
}

void require_tag(CommOperation operation, int tag) {
  KRAIT_REQUIRE(ConfigError, tag >= 0 && tag < user_tags, label(operation), ": tag is ", tag, ", expected 0 to ",
                user_tags - 1);
}

void require_extent(CommOperation operation, const char* argument, std::int64_t given, std::int64_t expected,
                    const char* why) {
  KRAIT_REQUIRE(ShapeError, given == expected, label(operation), ": ", argument, " has ", given, " elements, expected ",
                expected, " (", why, ')');
}

void require_divisible(const CommState& state, CommOperation operation, const char* argument, std::int64_t extent) {
  KRAIT_REQUIRE(ShapeError, extent % state.place.size == 0, label(operation), ": ", argument, " has ", extent,
                " elements, expected a multiple of the ", state.place.size, " ranks");
}

void require_counts(const CommState& state, CommOperation operation, const char* argument, Counts counts,
                    std::int64_t extent) {
  KRAIT_REQUIRE(ShapeError, counts.size() == static_cast<std::size_t>(state.place.size), label(operation), ": ",
                argument, " has ", counts.size(), " counts, expected one for each of the ", state.place.size, " ranks");
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    KRAIT_REQUIRE(ShapeError, counts[i] >= 0, label(operation), ": ", argument, '[', i, "] is ", counts[i],
                  ", expected 0 or more");
    sum += counts[i];
  }
  KRAIT_REQUIRE(ShapeError, sum == extent, label(operation), ": ", argument, " add up to ", sum,
                ", expected the buffer's ", extent, " elements");
}

void require_apart(CommOperation operation, const void* send, std::int64_t send_bytes, const void* recv,
                   std::int64_t recv_bytes) {
  if (send_bytes == 0 || recv_bytes == 0) return;
  const auto* const a = static_cast<const std::byte*>(send);
  const auto* const b = static_cast<const std::byte*>(recv);
  const std::less_equal<const std::byte*> before;
  KRAIT_REQUIRE(ConfigError, before(a + send_bytes, b) || before(b + recv_bytes, a), label(operation),
                ": send and recv overlap, expected separate buffers");
}

void require_contiguous(CommOperation operation, const char* argument, std::int64_t extent, std::int64_t stride) {
  KRAIT_REQUIRE(ShapeError, extent <= 1 || stride == 1, label(operation), ": ", argument, " has stride ", stride,
                ", expected contiguous elements");
}

Parts blocks(Counts counts, std::int64_t element_bytes) {
  Parts parts(counts.size());
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i] = {static_cast<int>(i), offset, counts[i] * element_bytes};
    offset += parts[i].bytes;
  }
  return parts;
}

Parts equal_blocks(const CommState& state, std::int64_t bytes) {
  Parts parts(static_cast<std::size_t>(state.place.size));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i] = {static_cast<int>(i), static_cast<std::int64_t>(i) * bytes, bytes};
  }
  return parts;
}

Parts same_block(const CommState& state, std::int64_t offset, std::int64_t bytes) {
  Parts parts(static_cast<std::size_t>(state.place.size));
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = {static_cast<int>(i), offset, bytes};
  return parts;
}

}  // namespace krait::impl
