// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Errors and checks. A message names the function, the argument, what was given and what was expected; checks depend
/// only on values that are equal on all ranks and run before the first message, so every rank throws alike.

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace krait {

/// Base of everything Krait throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Arguments of a constructor or plan that can never work together.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// Shard layout and document boundaries that contradict each other, the ranks or the tensors.
class LayoutError : public Error {
 public:
  using Error::Error;
};

/// A tensor whose extents differ from what the operation expects.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A fixed buffer or on-chip memory that is too small.
class CapacityError : public Error {
 public:
  using Error::Error;
};

/// A failed call of MPI or NCCL, with its own text.
class CommError : public Error {
 public:
  using Error::Error;
};

/// A file that is missing, truncated or not what it should be.
class FileError : public Error {
 public:
  using Error::Error;
};

namespace impl {

template <class V>
void append(std::ostringstream& text, const V& part) {
  text << part;
}

template <class V>
void append(std::ostringstream& text, const std::vector<V>& parts) {
  text << '(';
  for (std::size_t i = 0; i < parts.size(); ++i) text << (i == 0 ? "" : ", ") << parts[i];
  text << ')';
}

/// Throws E with the parts joined, and the place of the check.
template <class E, class... Parts>
[[noreturn]] void fail(const std::source_location& where, const Parts&... parts) {
  std::ostringstream text;
  (append(text, parts), ...);
  text << " [" << where.file_name() << ':' << where.line() << ']';
  throw E(text.str());
}

}  // namespace impl
}  // namespace krait

/// Throws ErrorType with the joined message parts when the condition does not hold; on in release builds too.
#define KRAIT_REQUIRE(ErrorType, condition, ...)                                                    \
  do {                                                                                              \
    if (!(condition)) ::krait::impl::fail<ErrorType>(std::source_location::current(), __VA_ARGS__); \
  } while (false)
