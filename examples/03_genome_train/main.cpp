// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Trains a small Mamba-2 language model on a whole genome: one sequence, split over all ranks, to predict the next
// base.
#include "genome_common/program.hpp"
#include "job.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
  return genome::run_program(
      "krait_genome_train", genome::train::help_text(),
      [](const genome::Exec& exec, const krait::Communicator& world, int count, const char* const* arguments) {
        return genome::train::run_job(exec, world, genome::train::parse_options(count, arguments));
      },
      argc, argv);
}
