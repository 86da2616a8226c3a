// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A stack of Mamba-2 mixers over a whole genome: one sequence, split over all ranks, compared with one rank and with a
// double-precision reference.
#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <krait/core/error.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "job.hpp"
#include "options.hpp"

namespace {

constexpr int failed = 1;
constexpr int failed_on_one_rank = 2;

/// All ranks come here together; one of them says why.
int stop(const krait::Communicator& world, const std::string& why) {
  if (world.rank() == 0) std::cerr << "krait_genome: " << why << std::endl;
  return failed;
}

/// The other ranks may be waiting for this one: ends the process at once, so that the launcher ends them.
[[noreturn]] void stop_alone(const krait::Communicator& world, const char* why) {
  std::cerr << "krait_genome: rank " << world.rank() << ": " << why << std::endl;
  std::_Exit(failed_on_one_rank);
}

/// Whether the user asks for help; Kokkos, shown the same argument, would answer too, on every rank.
bool asks_for_help(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](const std::string_view argument) { return argument == "--help"; });
}

}  // namespace

int main(int argc, char** argv) {
  const bool help = asks_for_help(argc, argv);
  if (help) argc = 1;
  const krait::Environment environment(argc, argv);
  const genome::Exec exec;
  const auto world = krait::Communicator::world(exec);
  try {
    if (help) {
      if (world.rank() == 0) std::cout << genome::help_text();
      return EXIT_SUCCESS;
    }
    const std::vector<std::string> wrong = genome::run_job(exec, world, genome::parse_options(argc, argv));
    for (const std::string& line : wrong) stop(world, line);
    return wrong.empty() ? EXIT_SUCCESS : failed;
  } catch (const krait::CommError& error) {
    stop_alone(world, error.what());
  } catch (const krait::Error& error) {  // thrown on every rank alike
    return stop(world, error.what());
  } catch (const std::exception& error) {
    stop_alone(world, error.what());
  }
}
