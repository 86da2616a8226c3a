// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <krait/comm/place.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <string>

#include "common/option_parser.hpp"

namespace genome {

using command_line::OptionParser;

enum class LayoutKind { zigzag, contiguous };

/// Which sequence is worked on, and how the ranks share it: options of every genome program.
struct InputOptions {
  std::string fasta;           ///< empty: Debian's copy of the lambda phage
  std::int64_t synthetic = 0;  ///< > 0: that many random bases instead of a file
  std::int64_t length = 0;     ///< > 0: the sequence repeated, or cut, to this length
  LayoutKind layout = LayoutKind::zigzag;
  std::uint64_t seed = 42;

  /// The file to read, when not synthetic.
  [[nodiscard]] std::string path() const;
};

/// --fasta, --synthetic, --length, --layout, --seed. Of the two sources of bases the last one counts, so that a caller
/// can overrule a script's default.
void add_input_options(OptionParser& parser, InputOptions& options);

/// What --help says about them, a line or two each; `seeded` is what the seed decides beside synthetic bases.
std::string input_options_help(const std::string& seeded);

krait::SequenceLayout make_layout(LayoutKind kind, const krait::Place& place, std::int64_t length);
const char* name_of(LayoutKind kind);

}  // namespace genome
