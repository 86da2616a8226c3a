// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/sequence.hpp"

#include <krait/core/random.hpp>
#include <utility>

#include "genome_common/fasta.hpp"
#include "genome_common/first_rank.hpp"

namespace genome {
namespace {

// Streams of krait::uniform and krait::normal: see also embedding.cpp of 02_genome.
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

}  // namespace

Sequence make_sequence(const InputOptions& options) {
  Sequence sequence = options.synthetic > 0 ? synthetic(options.synthetic, options.seed) : from_file(options.path());
  sequence.length = options.length > 0 ? options.length : static_cast<std::int64_t>(sequence.bases.size());
  return sequence;
}

Sequence make_sequence(const krait::Communicator& world, const InputOptions& options) {
  Sequence sequence;
  on_first_rank(world, [&] { sequence = make_sequence(options); });
  share(world, sequence.source);
  share(world, sequence.bases);
  sequence.length = options.length > 0 ? options.length : static_cast<std::int64_t>(sequence.bases.size());
  return sequence;
}

}  // namespace genome
