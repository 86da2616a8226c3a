// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/parallel/agreement.hpp>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <string>

#include <krait/comm/collectives.hpp>
#include <krait/core/error.hpp>
#include <krait/core/random.hpp>

namespace krait::impl {
namespace {

using Host = Kokkos::DefaultHostExecutionSpace;
template <class V>
using HostArray = Kokkos::View<V*, Kokkos::HostSpace>;

/// The types an error may have on its way to the other ranks; the number is what travels.
enum class ErrorKind : std::int64_t { none, config, layout, shape, capacity, comm, file, other };

[[noreturn]] void rethrow(ErrorKind kind, const std::string& text) {
  switch (kind) {
    case ErrorKind::config:
      throw ConfigError(text);
    case ErrorKind::layout:
      throw LayoutError(text);
    case ErrorKind::shape:
      throw ShapeError(text);
    case ErrorKind::capacity:
      throw CapacityError(text);
    case ErrorKind::comm:
      throw CommError(text);
    case ErrorKind::file:
      throw FileError(text);
    default:
      throw Error(text);
  }
}

struct Outcome {
  ErrorKind kind = ErrorKind::none;
  std::string text;
};

Outcome outcome_of(const std::function<void()>& check) {
  try {
    check();
  } catch (const ConfigError& error) {
    return {ErrorKind::config, error.what()};
  } catch (const LayoutError& error) {
    return {ErrorKind::layout, error.what()};
  } catch (const ShapeError& error) {
    return {ErrorKind::shape, error.what()};
  } catch (const CapacityError& error) {
    return {ErrorKind::capacity, error.what()};
  } catch (const CommError& error) {
    return {ErrorKind::comm, error.what()};
  } catch (const FileError& error) {
    return {ErrorKind::file, error.what()};
  } catch (const std::exception& error) {
    return {ErrorKind::other, error.what()};
  }
  return {};
}

std::string text_of_rank(const Communicator& group, int root, const std::string& mine, std::int64_t length) {
  const HostArray<std::byte> text("krait::agreement::text", static_cast<std::size_t>(length));
  if (group.rank() == root)
    for (std::size_t i = 0; i < mine.size(); ++i) text(i) = static_cast<std::byte>(mine[i]);
  comm::broadcast(Host(), group, text, root).wait();
  std::string result(text.size(), ' ');
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = static_cast<char>(text(i));
  return result;
}

}  // namespace

bool same_documents(const DocumentMap& a, const DocumentMap& b) {
  const std::vector<Run>& mine = a.runs().host();
  const std::vector<Run>& theirs = b.runs().host();
  return a.rows() == b.rows() && a.length() == b.length() &&
         (&mine == &theirs ||
          std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end(), [](const Run& m, const Run& t) {
            return m.row == t.row && m.begin == t.begin && m.end == t.end;
          }));
}

void agree(const Communicator& group, const char* function, const std::vector<SharedValue>& shared,
           const std::function<void()>& check) {
  if (group.size() == 1) return check();
  const Outcome outcome = outcome_of(check);

  // Every rank contributes (kind, text length, shared values...).
  const std::size_t width = 2 + shared.size();
  const HostArray<std::int64_t> mine("krait::agreement::mine", width);
  mine(0) = static_cast<std::int64_t>(outcome.kind);
  mine(1) = static_cast<std::int64_t>(outcome.text.size());
  for (std::size_t i = 0; i < shared.size(); ++i) mine(2 + i) = shared[i].value;
  const HostArray<std::int64_t> all("krait::agreement::all", width * static_cast<std::size_t>(group.size()));
  comm::all_gather(Host(), group, mine, all).wait();

  for (int rank = 0; rank < group.size(); ++rank) {
    const std::size_t row = static_cast<std::size_t>(rank) * width;
    const auto kind = static_cast<ErrorKind>(all(row));
    if (kind != ErrorKind::none) {
      const std::string text = text_of_rank(group, rank, outcome.text, all(row + 1));
      rethrow(kind, "rank " + std::to_string(rank) + ": " + text);
    }
  }
  for (int rank = 1; rank < group.size(); ++rank)
    for (std::size_t i = 2; i < width; ++i) {
      const std::int64_t theirs = all(static_cast<std::size_t>(rank) * width + i);
      KRAIT_REQUIRE(LayoutError, theirs == all(i), function, ": the ranks disagree on ", shared[i - 2].name,
                    ", rank 0 has ", all(i), " and rank ", rank, " has ", theirs);
    }
}

std::int64_t fingerprint(const SequenceLayout& layout) {
  std::uint64_t hash = mix64(static_cast<std::uint64_t>(layout.length()));
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    for (const Stretch& stretch : layout.stretches(rank)) {
      hash = mix64(hash ^ static_cast<std::uint64_t>(stretch.token));
      hash = mix64(hash ^ static_cast<std::uint64_t>(stretch.count));
    }
    hash = mix64(hash + 1);
  }
  return static_cast<std::int64_t>(hash);
}

std::int64_t fingerprint(const DocumentMap& documents) {
  std::uint64_t hash = mix64(static_cast<std::uint64_t>(documents.rows()));
  for (const Run& run : documents.runs().host())
    for (const std::int64_t value : {run.row, run.begin, run.end})
      hash = mix64(hash ^ static_cast<std::uint64_t>(value));
  return static_cast<std::int64_t>(hash);
}

std::int64_t fingerprint(const SequenceOperatorConfig& config) {
  const std::array<std::int64_t, 11> values = {config.heads,
                                               config.head_dim,
                                               config.groups,
                                               config.d_state,
                                               config.d_conv,
                                               config.chunk_size,
                                               static_cast<std::int64_t>(config.activation),
                                               static_cast<std::int64_t>(config.divisibility),
                                               static_cast<std::int64_t>(config.state_exchange),
                                               std::bit_cast<std::int64_t>(config.dt_limit.first),
                                               std::bit_cast<std::int64_t>(config.dt_limit.second)};
  std::uint64_t hash = 0;
  for (const std::int64_t value : values) hash = mix64(hash ^ static_cast<std::uint64_t>(value));
  return static_cast<std::int64_t>(hash);
}

void AgreedCall::operator()(const Communicator& group, const char* function, const SequenceLayout& layout,
                            const DocumentMap& documents, const std::function<void()>& check, const SharedValue* more) {
  if (group.size() == 1) return check();
  std::erase_if(agreed_, [](const Agreed& agreed) { return agreed.group.expired(); });
  const auto last = std::find_if(agreed_.begin(), agreed_.end(), [&group, function](const Agreed& agreed) {
    return agreed.function == function && agreed.group.lock() == group.state();
  });
  if (last != agreed_.end() && last->layout == layout && same_documents(last->documents, documents)) return check();
  std::vector<SharedValue> shared = {{"rows", documents.rows()},          {"length", layout.length()},
                                     {"the strategy", strategy_},         {"the configuration", configuration_},
                                     {"the layout", fingerprint(layout)}, {"the documents", fingerprint(documents)}};
  if (more != nullptr) shared.push_back(*more);
  agree(group, function, shared, [&] {
    check();
    if (more != nullptr) shared.back() = *more;
  });
  if (last != agreed_.end()) agreed_.erase(last);
  agreed_.push_back({group.state(), function, layout, documents});
}

}  // namespace krait::impl
