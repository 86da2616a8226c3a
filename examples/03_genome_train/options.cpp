// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "options.hpp"

#include <algorithm>
#include <krait/core/error.hpp>

#include "common/option_parser.hpp"

namespace genome::train {

using command_line::choice;
using command_line::number;
using command_line::path;
using command_line::real;

Schedule Options::schedule() const {
  constexpr std::int64_t steps_per_warm_up_step = 10;
  const std::int64_t automatic = std::max<std::int64_t>(1, steps / steps_per_warm_up_step);
  return {.peak = learning_rate, .warm_up = warm_up > 0 ? warm_up : automatic, .steps = steps};
}

Options parse_options(int argc, const char* const* argv) {
  constexpr std::int64_t most = std::int64_t{1} << 30;
  Options options;
  OptionParser parser;
  add_input_options(parser, options);
  add_progress_option(parser, options.progress);
  parser.add("--layers", number(options.model.layers, 1, 10000));
  parser.add("--d-model", number(options.model.d_model, 1, most));
  parser.add("--d-state", number(options.model.d_state, 1, most));
  parser.add("--strategy",
             choice<krait::Strategy>(options.strategy, {{"automatic", krait::Strategy::automatic},
                                                        {"hidden_parallel", krait::Strategy::hidden_parallel},
                                                        {"state_passing", krait::Strategy::state_passing}}));
  parser.add("--steps", number(options.steps, 2, most));
  parser.add("--stop-after", number(options.stop_after, 1, most));
  parser.add("--lr", real(options.learning_rate, 0, 1));
  parser.add("--warm-up", number(options.warm_up, 1, most));
  parser.add("--weight-decay", real(options.weight_decay, 0, 1, /*least_too=*/true));
  parser.add("--clip", real(options.clip, 0, 1e9));
  parser.add("--csv", path(options.csv));
  parser.add("--save", path(options.save));
  parser.add("--save-every", number(options.save_every, 1, most));
  parser.add("--resume", path(options.resume));
  parser.add_flag("--quiet", [&options] { options.quiet = true; });
  parser.parse(argc, argv);
  if (options.save_every > 0 && options.save.empty()) throw krait::ConfigError("--save-every needs --save FILE");
  if (options.stop_after > options.steps) {
    throw krait::ConfigError("--stop-after takes at most --steps, which is " + std::to_string(options.steps) +
                             ", got " + std::to_string(options.stop_after));
  }
  options.model.validate();
  return options;
}

std::string help_text() {
  return "krait_genome_train: trains a small Mamba-2 language model to predict the next base of a genome, which is "
         "one\n"
         "sequence split over all ranks\n"
         "\n"
         "usage: mpirun -n RANKS krait_genome_train [options]\n"
         "\n" +
         input_options_help("parameters") +
         "  --layers N         number of mixers (4)\n"
         "  --d-model N        width of the hidden states, a multiple of 4 (64)\n"
         "  --d-state N        width of the states (16)\n"
         "  --strategy KIND    hidden_parallel or state_passing; automatic (default) leaves it to the library\n"
         "  --steps N          steps of the learning rate's schedule (60)\n"
         "  --stop-after N     end this run behind step N; --resume goes on with the same options\n"
         "  --lr X             learning rate at its peak (0.004)\n"
         "  --warm-up N        steps before the peak (a tenth of all)\n"
         "  --weight-decay X   of matrices (0.1)\n"
         "  --clip X           largest norm of the gradient (1)\n"
         "  --csv FILE         step, loss, learning rate, gradient norm and speed, a line a step (loss.csv)\n"
         "  --save FILE        write a checkpoint at the end\n"
         "  --save-every N     and behind every N-th step\n"
         "  --resume FILE      go on from a checkpoint, on any number of ranks\n"
         "  --progress KIND    bar, lines or auto: a bar on a terminal, else lines\n"
         "  --quiet            print the last line only\n"
         "  --help             this text\n"
         "\n"
         "Ends with a line that begins 'krait: ok', or says what is wrong and exits with 1.\n";
}

}  // namespace genome::train
