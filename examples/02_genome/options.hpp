// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <string>

namespace genome {

enum class LayoutKind { zigzag, contiguous };
enum class ProgressKind { automatic, bar, lines };

/// What the user asked for.
struct Options {
  std::string fasta;           ///< empty: Debian's copy of the lambda phage
  std::int64_t synthetic = 0;  ///< > 0: that many random bases instead of a file
  std::int64_t length = 0;     ///< > 0: the sequence repeated, or cut, to this length
  std::int64_t layers = 4;
  std::int64_t d_model = 128;
  LayoutKind layout = LayoutKind::zigzag;
  std::uint64_t seed = 42;
  std::int64_t prefix = 512;  ///< tokens that are compared with the reference
  bool check = true;          ///< compare with the one-rank run
  ProgressKind progress = ProgressKind::automatic;

  /// The file to read, when not synthetic.
  [[nodiscard]] std::string path() const;
};

/// All options but --help, which main() answers.
/// \throws krait::ConfigError that names the option, what was given and what it takes
Options parse_options(int argc, const char* const* argv);

std::string help_text();

}  // namespace genome
