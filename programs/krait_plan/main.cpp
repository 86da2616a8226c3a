// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Predicts time, volume and memory of every strategy, and which one is the fastest; on request measures how good that
// is.
#include <iostream>
#include <krait/comm/environment.hpp>
#include <krait/core/error.hpp>
#include <sstream>
#include <string>
#include <utility>

#include "krait_plan/check.hpp"
#include "krait_plan/machine_file.hpp"
#include "krait_plan/options.hpp"
#include "krait_plan/report.hpp"

namespace {

/// Answers that need no machine.
void predict(std::ostream& answer, const plan::Options& options) {
  if (options.task == plan::Task::help) {
    answer << plan::help_text();
  } else if (options.json) {
    plan::print_json(answer, options);
  } else {
    plan::print_tables(answer, options);
  }
}

/// Answers of rank 0; the others stay silent. Tables of a grid grow line by line, for it takes minutes.
void run(std::ostream& answer, const plan::Options& options) {
  const auto world = krait::Communicator::world(Kokkos::DefaultExecutionSpace());
  if (options.task == plan::Task::calibrate) {
    const krait::Machine machine = plan::calibrate(world, options);
    if (world.rank() == 0) plan::write_machine(answer, machine);
    return;
  }
  const bool table = !options.json && world.rank() == 0;
  bool first = true;
  const auto print = [&](const plan::Check& check) {
    if (!table) return;
    if (std::exchange(first, false)) std::cout << plan::check_header();
    plan::print_check(std::cout, check);
    std::cout << std::flush;
  };
  std::vector<plan::Check> checks;
  if (options.task == plan::Task::check_grid) {
    checks = plan::check_grid(world, print);
  } else {
    checks.push_back(plan::check(world, options));
    print(checks.back());
  }
  if (world.rank() != 0) return;
  if (options.json) {
    plan::print_checks_json(answer, checks);
  } else {
    plan::print_summary(answer, checks);
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int bad_options = 2;
  try {
    const plan::Options options = plan::parse_options(argc, argv);
    std::ostringstream answer;  // whole, or not at all
    if (options.task == plan::Task::predict || options.task == plan::Task::help) {
      predict(answer, options);
    } else {
      const krait::Environment environment(argc, argv);
      run(answer, options);
    }
    std::cout << answer.str() << std::flush;
    return std::cout ? 0 : 1;
  } catch (const krait::ConfigError& error) {
    std::cerr << "krait-plan: " << error.what() << '\n';
    return bad_options;
  }
}
