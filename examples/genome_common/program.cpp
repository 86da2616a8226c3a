// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "genome_common/program.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <krait/core/error.hpp>
#include <string_view>

namespace genome {
namespace {

constexpr int failed = 1;
constexpr int failed_on_one_rank = 2;

/// The other ranks may be waiting for this one: ends the process at once, so that the launcher ends them.
[[noreturn]] void stop_alone(const std::string& name, const krait::Communicator& world, const char* why) {
  std::cerr << name << ": rank " << world.rank() << ": " << why << std::endl;
  std::_Exit(failed_on_one_rank);
}

/// Whether the user asks for help; Kokkos, shown the same argument, would answer too, on every rank.
bool asks_for_help(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](const std::string_view argument) { return argument == "--help"; });
}

}  // namespace

int run_program(const std::string& name, const std::string& help, const Job& job, int argc, char** argv) try {
  const bool wants_help = asks_for_help(argc, argv);
  if (wants_help) argc = 1;
  const krait::Environment environment(argc, argv);
  const Exec exec;
  const auto world = krait::Communicator::world(exec);
  // All ranks come here together; one of them says why.
  const auto stop = [&](const std::string& why) {
    if (world.rank() == 0) std::cerr << name << ": " << why << std::endl;
    return failed;
  };
  try {
    if (wants_help) {
      if (world.rank() == 0) std::cout << help;
      return EXIT_SUCCESS;
    }
    const std::vector<std::string> wrong = job(exec, world, argc, argv);
    for (const std::string& line : wrong) stop(line);
    return wrong.empty() ? EXIT_SUCCESS : failed;
  } catch (const krait::CommError& error) {
    stop_alone(name, world, error.what());
  } catch (const krait::Error& error) {  // thrown on every rank alike
    return stop(error.what());
  } catch (const std::exception& error) {
    stop_alone(name, world, error.what());
  }
} catch (const krait::Error& error) {  // there are no ranks yet
  std::cerr << name << ": " << error.what() << std::endl;
  return failed;
}

}  // namespace genome
