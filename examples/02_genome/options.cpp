// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "options.hpp"

#include <charconv>
#include <functional>
#include <krait/core/error.hpp>
#include <limits>
#include <map>
#include <system_error>

namespace genome {
namespace {

// Where Debian's package bowtie2-examples puts the genome of the phage lambda (NC_001416.1, 48,502 bases).
constexpr const char* debian_lambda_phage = "/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz";

using Setter = std::function<void(Options&, const std::string& name, const std::string& text)>;

template <class Integer>
Setter number(Integer Options::* member, Integer least, Integer most = std::numeric_limits<Integer>::max()) {
  return [=](Options& options, const std::string& name, const std::string& text) {
    Integer value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc{} || end != text.data() + text.size() || value < least) {
      throw krait::ConfigError(name + " takes a whole number of at least " + std::to_string(least) + ", got '" + text +
                               "'");
    }
    if (value > most) {
      throw krait::ConfigError(name + " takes a whole number of at most " + std::to_string(most) + ", got '" + text +
                               "'");
    }
    options.*member = value;
  };
}

template <class Choice>
Setter choice(Choice Options::* member, const std::map<std::string, Choice>& choices) {
  return [=](Options& options, const std::string& name, const std::string& text) {
    const auto found = choices.find(text);
    if (found != choices.end()) {
      options.*member = found->second;
      return;
    }
    std::string expected;
    for (const auto& [known, value] : choices) expected += (expected.empty() ? "" : ", ") + known;
    throw krait::ConfigError(name + " takes one of " + expected + ", got '" + text + "'");
  };
}

// Of the two sources of bases the last one counts, so that a caller can overrule a script's default.
void set_fasta(Options& options, const std::string& name, const std::string& text) {
  if (text.empty()) throw krait::ConfigError(name + " takes the path of a file, got ''");
  options.fasta = text;
  options.synthetic = 0;
}

const std::map<std::string, Setter>& valued_options() {
  constexpr std::int64_t one = 1;
  constexpr std::int64_t longest = std::int64_t{1} << 40;  // no machine holds more
  static const std::map<std::string, Setter> setters = {
      {"--fasta", set_fasta},
      {"--synthetic", number(&Options::synthetic, one, longest)},
      {"--length", number(&Options::length, one, longest)},
      {"--layers", number(&Options::layers, one)},
      {"--d-model", number(&Options::d_model, one)},
      {"--prefix", number(&Options::prefix, std::int64_t{0})},
      {"--seed", number(&Options::seed, std::uint64_t{0})},
      {"--layout",
       choice<LayoutKind>(&Options::layout, {{"zigzag", LayoutKind::zigzag}, {"contiguous", LayoutKind::contiguous}})},
      {"--progress", choice<ProgressKind>(&Options::progress, {{"auto", ProgressKind::automatic},
                                                               {"bar", ProgressKind::bar},
                                                               {"lines", ProgressKind::lines}})},
  };
  return setters;
}

}  // namespace

std::string Options::path() const { return fasta.empty() ? debian_lambda_phage : fasta; }

Options parse_options(int argc, const char* const* argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--no-check") {
      options.check = false;
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const auto setter = valued_options().find(name);
    if (setter == valued_options().end()) {
      throw krait::ConfigError("unknown option '" + argument + "'; --help lists the options");
    }
    if (equals == std::string::npos && i + 1 == argc) throw krait::ConfigError(name + " needs a value");
    setter->second(options, name, equals == std::string::npos ? argv[++i] : argument.substr(equals + 1));
  }
  return options;
}

std::string help_text() {
  return std::string(
             "krait_genome: a stack of Mamba-2 mixers over a whole genome, one sequence split over all ranks\n"
             "\n"
             "usage: mpirun -n RANKS krait_genome [options]\n"
             "\n"
             "  --fasta PATH       FASTA file, plain or gzip; the first record is read\n"
             "                     default: ") +
         debian_lambda_phage +
         "\n"
         "  --synthetic N      N random bases instead of a file; of the two the last counts\n"
         "  --length L         repeat the sequence, or cut it, to L tokens\n"
         "  --layout KIND      zigzag (default) or contiguous\n"
         "  --layers N         number of mixers (4)\n"
         "  --d-model N        width of the hidden states, a multiple of 128 (128)\n"
         "  --seed S           seed of parameters, embedding and synthetic bases (42)\n"
         "  --prefix N         tokens to compare with the double-precision reference (512); 0 for none\n"
         "  --no-check         do not repeat the run on one rank; the memory of one rank is then computed\n"
         "  --progress KIND    bar, lines or auto: a bar on a terminal, else lines\n"
         "  --help             this text\n"
         "\n"
         "Ends with a line that begins 'krait: ok', or says what disagrees and exits with 1.\n";
}

}  // namespace genome
