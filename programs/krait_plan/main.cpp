// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Predicts time, volume and memory of every strategy, and which one is the fastest. Runs nothing.
#include <iostream>
#include <krait/core/error.hpp>
#include <sstream>
#include <string>

#include "krait_plan/options.hpp"
#include "krait_plan/report.hpp"

int main(int argc, char** argv) {
  constexpr int bad_options = 2;
  try {
    const plan::Options options = plan::parse_options(argc, argv);
    std::ostringstream answer;  // whole, or not at all
    if (options.help) {
      answer << plan::help_text();
    } else if (options.json) {
      plan::print_json(answer, options);
    } else {
      plan::print_tables(answer, options);
    }
    std::cout << answer.str() << std::flush;
    return std::cout ? 0 : 1;
  } catch (const krait::ConfigError& error) {
    std::cerr << "krait-plan: " << error.what() << '\n';
    return bad_options;
  }
}
