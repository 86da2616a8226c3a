// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Speed of what several ranks do together: a timed section begins when all are there, and the slowest rank counts, so
// that every rank runs the same number of iterations. One rank speaks.
#include <mpi.h>

#include <algorithm>
#include <iostream>
#include <krait/comm/environment.hpp>
#include <string_view>

#include "harness.hpp"
#include "ranks.hpp"
#include "report.hpp"

namespace {

void wait() { MPI_Barrier(MPI_COMM_WORLD); }

double slowest(double mine) {
  MPI_Allreduce(MPI_IN_PLACE, &mine, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return mine;
}

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string_view all(text, static_cast<std::size_t>(length));
  return std::string(all.substr(0, all.find_first_of("\n,")));
}

}  // namespace

int main(int argc, char** argv) {
  const krait::Environment environment(argc, argv);
  int status = 0;
  {
    const krait::Communicator world = krait::Communicator::world(krait::perf::Exec());
    if (world.size() < 2) {
      std::cerr << "krait_bench_ranks: one rank has nobody to exchange with; start 2 or more with mpirun\n";
      return 1;
    }
    const bool speaks = world.rank() == 0;
    if (!speaks) {  // the others would all open the file
      char** end = std::remove_if(
          argv, argv + argc, [](const char* text) { return std::string_view(text).starts_with("--benchmark_out"); });
      argc = static_cast<int>(end - argv);
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    krait::perf::set_peers({world.size(), wait, slowest});
    krait::perf::add_context();
    benchmark::AddCustomContext("mpi", mpi_library());
    benchmark::AddCustomContext("ranks", std::to_string(world.size()));
    krait::perf::register_mixer_on_ranks(world);
    krait::perf::register_redistribution(world);
    status = krait::perf::run_benchmarks(speaks);
    benchmark::Shutdown();
  }
  return status;
}
