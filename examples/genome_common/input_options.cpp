// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/input_options.hpp"

namespace genome {

using command_line::choice;
using command_line::number;
using command_line::path;

namespace {

// Where Debian's package bowtie2-examples puts the genome of the phage lambda (NC_001416.1, 48,502 bases).
constexpr const char* debian_lambda_phage = "/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz";

}  // namespace

std::string InputOptions::path() const { return fasta.empty() ? debian_lambda_phage : fasta; }

void add_input_options(OptionParser& parser, InputOptions& options) {
  constexpr std::int64_t longest = std::int64_t{1} << 40;  // no machine holds more
  parser.add("--fasta", [&options](const std::string& name, const std::string& text) {
    path(options.fasta)(name, text);
    options.synthetic = 0;
  });
  parser.add("--synthetic", number(options.synthetic, 1, longest));
  parser.add("--length", number(options.length, 1, longest));
  parser.add("--layout", choice<LayoutKind>(options.layout,
                                            {{"zigzag", LayoutKind::zigzag}, {"contiguous", LayoutKind::contiguous}}));
  parser.add("--seed", number(options.seed));
}

std::string input_options_help(const std::string& seeded) {
  return std::string(
             "  --fasta PATH       FASTA file, plain or gzip; the first record is read\n"
             "                     default: ") +
         debian_lambda_phage +
         "\n"
         "  --synthetic N      N random bases instead of a file; of the two the last counts\n"
         "  --length L         repeat the sequence, or cut it, to L tokens\n"
         "  --layout KIND      zigzag (default) or contiguous\n"
         "  --seed S           seed of " +
         seeded + " and synthetic bases (42)\n";
}

krait::SequenceLayout make_layout(LayoutKind kind, const krait::Place& place, std::int64_t length) {
  return kind == LayoutKind::zigzag ? krait::SequenceLayout::zigzag(place, length)
                                    : krait::SequenceLayout::contiguous(place, length);
}

const char* name_of(LayoutKind kind) { return kind == LayoutKind::zigzag ? "zigzag" : "contiguous"; }

}  // namespace genome
