// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

/// \file
/// Order of beginnings and ends. A program of its own, since MPI and Kokkos begin and end once per process.
/// Returns how many statements do not hold.

#include <Kokkos_Core.hpp>
#include <cstring>
#include <iostream>
#include <krait/comm/collectives.hpp>
#include <krait/comm/environment.hpp>
#include <krait/comm/reductions.hpp>
#include <string>
#include <vector>

#include <krait/core/config.hpp>
#ifdef KRAIT_ENABLE_MPI
#include <krait/comm/mpi/check.hpp>
#endif

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  ++failures;
  std::cerr << "does not hold: " << what << '\n';
}

#define EXPECT(condition) expect((condition), #condition)

#ifdef KRAIT_ENABLE_MPI
bool mpi_is_open() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}
#endif

krait::Communicator use_and_keep() {
  const Kokkos::DefaultExecutionSpace exec;
  auto comm = krait::Communicator::world(exec);
  comm.force_host_buffer(true);  // so that it owns buffers
  const Kokkos::View<float*> a("a", static_cast<std::size_t>(comm.size()));
  const Kokkos::View<float*> b("b", static_cast<std::size_t>(comm.size()));
  krait::comm::all_to_all(exec, comm, a, b).wait();
  krait::comm::all_reduce(exec, comm, a, b, krait::Reduction::sum).wait();
  return comm;
}

}  // namespace

int main(int argc, char** argv) {
  // The arguments as a user could give them: Kokkos's are taken away, the others stay in their order.
  std::vector<std::string> given = {argv[0], "--first", "--kokkos-num-threads=1", "last"};
  std::vector<char*> pointers;
  for (std::string& text : given) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  argc = 4;
  argv = pointers.data();

  std::vector<krait::Communicator> survivor;
  {
    const krait::Environment outer(argc, argv);
    EXPECT(argc == 3);
    EXPECT(std::strcmp(argv[1], "--first") == 0 && std::strcmp(argv[2], "last") == 0);
    EXPECT(Kokkos::is_initialized());
#ifdef KRAIT_ENABLE_MPI
    EXPECT(mpi_is_open());
#endif
    {
      // Somebody else has opened everything: it stays open.
      const krait::Environment inner(argc, argv);
    }
    EXPECT(Kokkos::is_initialized() && !Kokkos::is_finalized());
#ifdef KRAIT_ENABLE_MPI
    EXPECT(mpi_is_open());
#endif
    survivor.push_back(use_and_keep());
  }
  EXPECT(Kokkos::is_finalized());
#ifdef KRAIT_ENABLE_MPI
  EXPECT(!mpi_is_open());
#endif
  EXPECT(survivor.front().counters().total().calls == 2);
  survivor.clear();
  return failures;
}
