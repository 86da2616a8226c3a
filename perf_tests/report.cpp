// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <Kokkos_Core.hpp>
#include <cstdio>
#include <cstdlib>
#include <krait/core/config.hpp>
#include <memory>
#include <ostream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "goals.hpp"

namespace krait::perf {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "(not set)" : value;
}

/// Kokkos's own description on one line.
std::string kokkos_configuration() {
  std::ostringstream text;
  Kokkos::print_configuration(text);
  std::string line;
  for (const char c : text.str()) {
    if (c != '\n')
      line += c;
    else if (!line.empty() && line.back() != ';')
      line += ';';
  }
  return line;
}

using Run = benchmark::BenchmarkReporter::Run;

/// "op/direction/shape/scalar/L:tokens/T:threads", without what Google Benchmark adds to names.
std::string row_name(const Run& run) { return run.run_name.function_name; }

const Goal* goal_of(const std::string& row) {
  for (const Goal& goal : goals) {
    if (std::regex_search(row, std::regex(goal.rows))) return &goal;
  }
  return nullptr;
}

/// Reports as Google Benchmark does, and keeps what the summary needs.
class Reporter : public benchmark::BenchmarkReporter {
 public:
  explicit Reporter(bool speaks) : display_(speaks ? benchmark::CreateDefaultDisplayReporter() : nullptr) {
    if (speaks) return;
    SetOutputStream(&nowhere_);  // lists of benchmarks
    SetErrorStream(&nowhere_);
  }

  bool ReportContext(const Context& context) override { return !display_ || display_->ReportContext(context); }

  void ReportRuns(const std::vector<Run>& runs) override {
    if (display_) display_->ReportRuns(runs);
    for (const Run& run : runs) {
      failed_ = failed_ || run.skipped == benchmark::internal::SkippedWithError;
      // Of repetitions the median counts, of a single run its figure.
      const bool counts = run.run_type == Run::RT_Aggregate ? run.aggregate_name == "median" : run.repetitions <= 1;
      if (counts && run.skipped == benchmark::internal::NotSkipped) figures_.push_back(run);
    }
  }

  void Finalize() override {
    if (display_) display_->Finalize();
  }

  [[nodiscard]] bool failed() const { return failed_; }

  /// To a person; other formats are read by programs.
  void print_summary() const {
    if (dynamic_cast<const benchmark::ConsoleReporter*>(display_.get()) == nullptr || figures_.empty()) return;
    int met = 0;
    int missed = 0;
    for (const Run& run : figures_) {
      const std::string row = row_name(run);
      const Goal* goal = goal_of(row);
      if (goal == nullptr || run.counters.count(goal->counter) == 0) continue;
      if (met + missed == 0) std::printf("\n%-64s %-22s %8s  %s\n", "row", "counter", "figure", "goal");
      const double figure = run.counters.at(goal->counter);
      const bool reached = goal->at_least ? figure >= goal->value : figure <= goal->value;
      ++(reached ? met : missed);
      std::printf("%-64s %-22s %8.3f  %s %.2f  %s\n", row.c_str(), goal->counter, figure,
                  goal->at_least ? ">=" : "<=", goal->value, reached ? "met" : "missed");
    }
    std::printf("%s%d met, %d missed, %d rows without a goal\n", met + missed == 0 ? "\n" : "", met, missed,
                static_cast<int>(figures_.size()) - met - missed);
  }

 private:
  std::ostream nowhere_{nullptr};
  std::unique_ptr<benchmark::BenchmarkReporter> display_;
  std::vector<Run> figures_;
  bool failed_ = false;
};

}  // namespace

void add_context() {
  benchmark::AddCustomContext("krait", KRAIT_VERSION_STRING);
  benchmark::AddCustomContext("kokkos", kokkos_configuration());
  benchmark::AddCustomContext("execution_space", Kokkos::DefaultExecutionSpace::name());
  benchmark::AddCustomContext("compiler", __VERSION__);
  for (const char* name : {"OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES"})
    benchmark::AddCustomContext(name, environment(name));
}

int run_benchmarks(bool speaks) {
  Reporter reporter(speaks);
  // none: the filter matches nothing, or is no regular expression, which Google Benchmark has said
  const bool any = benchmark::RunSpecifiedBenchmarks(&reporter) > 0;
  reporter.print_summary();
  return any && !reporter.failed() ? 0 : 1;
}

}  // namespace krait::perf
