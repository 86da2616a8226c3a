// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stack of Mamba-2 mixers over a whole genome: one sequence, split over all ranks, compared with one rank and with a
// double-precision reference.
#include "genome_common/program.hpp"
#include "job.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
  return genome::run_program(
      "krait_genome", genome::help_text(),
      [](const genome::Exec& exec, const krait::Communicator& world, int count, const char* const* arguments) {
        return genome::run_job(exec, world, genome::parse_options(count, arguments));
      },
      argc, argv);
}
