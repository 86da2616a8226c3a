// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "sequence.hpp"

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstddef>
#include <krait/comm/collectives.hpp>
#include <krait/core/error.hpp>
#include <krait/core/random.hpp>

#include "fasta.hpp"

namespace genome {
namespace {

using Host = Kokkos::DefaultHostExecutionSpace;

// Streams of krait::uniform and krait::normal: see also embedding.cpp.
constexpr std::uint64_t synthetic_stream = 1;

Sequence synthetic(std::int64_t count, std::uint64_t seed) {
  Sequence sequence;
  sequence.source = "synthetic, seed " + std::to_string(seed);
  for (std::int64_t i = 0; i < count; ++i) {
    const double draw = krait::uniform(seed, synthetic_stream, static_cast<std::uint64_t>(i));
    sequence.bases.push_back(static_cast<Base>(1U << static_cast<unsigned>(4 * draw)));
  }
  return sequence;
}

Sequence from_file(const std::string& path) {
  std::vector<FastaRecord> records = read_fasta(path);
  Sequence sequence;
  sequence.source = path + ", " + records.front().name;
  if (records.size() > 1) sequence.source += " (the first of " + std::to_string(records.size()) + " records)";
  sequence.bases = std::move(records.front().bases);
  return sequence;
}

/// Gives rank 0's `count` bytes to all ranks.
template <class Container>
void share(const krait::Communicator& world, Container& bytes, std::size_t count) {
  const Kokkos::View<std::byte*, Kokkos::HostSpace> message("krait_genome::message", count);
  if (world.rank() == 0) {
    for (std::size_t i = 0; i < count; ++i) message(i) = static_cast<std::byte>(bytes[i]);
  }
  krait::comm::broadcast(Host(), world, message, 0).wait();
  bytes.resize(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<typename Container::value_type>(message(i));
}

}  // namespace

Sequence make_sequence(const Options& options) {
  Sequence sequence = options.synthetic > 0 ? synthetic(options.synthetic, options.seed) : from_file(options.path());
  sequence.length = options.length > 0 ? options.length : static_cast<std::int64_t>(sequence.bases.size());
  return sequence;
}

Sequence on_all_ranks(const krait::Communicator& world, const std::function<Sequence()>& make) {
  Sequence sequence;
  std::string error;
  if (world.rank() == 0) {
    try {
      sequence = make();
    } catch (const krait::FileError& caught) {
      error = caught.what();
    }
  }
  const Kokkos::View<std::int64_t*, Kokkos::HostSpace> sizes("krait_genome::sizes", 4);
  sizes(0) = static_cast<std::int64_t>(error.size());
  sizes(1) = static_cast<std::int64_t>(sequence.source.size());
  sizes(2) = static_cast<std::int64_t>(sequence.bases.size());
  sizes(3) = sequence.length;
  krait::comm::broadcast(Host(), world, sizes, 0).wait();

  share(world, error, static_cast<std::size_t>(sizes(0)));
  if (!error.empty()) throw krait::FileError(error);
  share(world, sequence.source, static_cast<std::size_t>(sizes(1)));
  share(world, sequence.bases, static_cast<std::size_t>(sizes(2)));
  sequence.length = sizes(3);
  return sequence;
}

}  // namespace genome
