// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "options.hpp"

#include "common/option_parser.hpp"

namespace genome {
namespace {

using command_line::choice;
using command_line::number;

using Strategies = std::vector<krait::Strategy>;

OptionParser::Setter strategies(Strategies& target) {
  const Strategies both = target;
  std::map<std::string, Strategies> choices = {{"both", both}};
  for (const krait::Strategy strategy : both) choices[krait::name_of(strategy)] = {strategy};
  return choice<Strategies>(target, choices);
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  Options options;
  OptionParser parser;
  add_input_options(parser, options);
  add_progress_option(parser, options.progress);
  parser.add("--layers", number(options.layers, 1));
  parser.add("--d-model", number(options.d_model, 1));
  parser.add("--prefix", number(options.prefix, 0));
  parser.add("--strategy", strategies(options.strategies));
  parser.add_flag("--no-check", [&options] { options.check = false; });
  parser.parse(argc, argv);
  return options;
}

std::string help_text() {
  return "krait_genome: a stack of Mamba-2 mixers over a whole genome, one sequence split over all ranks\n"
         "\n"
         "usage: mpirun -n RANKS krait_genome [options]\n"
         "\n" +
         input_options_help("parameters, embedding") +
         "  --layers N         number of mixers (4)\n"
         "  --d-model N        width of the hidden states, a multiple of 128 (128)\n"
         "  --prefix N         tokens to compare with the double-precision reference (512); 0 for none\n"
         "  --strategy KIND    hidden_parallel, state_passing, or both (default), one after the other\n"
         "  --no-check         do not repeat the run on one rank; the memory of one rank is then computed\n"
         "  --progress KIND    bar, lines or auto: a bar on a terminal, else lines\n"
         "  --help             this text\n"
         "\n"
         "Ends with a line that begins 'krait: ok', or says what disagrees and exits with 1.\n";
}

}  // namespace genome
