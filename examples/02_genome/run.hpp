// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <krait/core/memory_meter.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <vector>

#include "genome_common/progress.hpp"
#include "genome_common/sequence.hpp"
#include "mixer_stack.hpp"
#include "options.hpp"

namespace genome {

/// One pass of the stack over the sequence, as this rank saw it.
struct Run {
  std::vector<float> stream;    ///< (local tokens, d_model), behind the last layer
  double seconds = 0;           ///< from the first layer to the end of the last, buffers and plans included
  std::int64_t exchanges = 0;   ///< collective operations that moved activations or states
  std::int64_t bytes_sent = 0;  ///< all operations, what set-up costs included
  std::size_t peak_bytes = 0;   ///< most memory in use at a time, parameters apart
};

/// Builds a stack for the ranks of `context`, embeds this rank's tokens and runs the stack on them. Collective.
Run run_stack(const Exec& exec, const krait::Communicator& context, krait::Strategy strategy,
              const krait::SequenceLayout& layout, const Options& options, const Sequence& sequence,
              krait::MemoryMeter& meter, Progress& progress);

/// Brings the ranks' tokens to rank 0 in the order of the sequence: (length, width) there, empty elsewhere. Collective.
std::vector<float> gather_in_order(const krait::Communicator& world, const krait::SequenceLayout& layout,
                                   const std::vector<float>& local, std::int64_t width);

}  // namespace genome
