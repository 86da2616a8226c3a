// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/environment.hpp>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <krait/comm/cuda_check.hpp>
#include <krait/comm/mpi/check.hpp>
#include <krait/core/config.hpp>
#include <krait/core/error.hpp>

namespace krait {
namespace {

#ifdef KRAIT_ENABLE_MPI

/// Opens MPI unless the caller has.
bool open_mpi(int& argc, char**& argv) {
  int finalized = 0;
  KRAIT_CHECK_MPI(MPI_Finalized(&finalized));
  KRAIT_REQUIRE(ConfigError, finalized == 0, "krait::Environment: MPI was finalised before, it cannot be opened again");
  int initialized = 0;
  KRAIT_CHECK_MPI(MPI_Initialized(&initialized));
  if (initialized != 0) return false;
  int provided = MPI_THREAD_SINGLE;
  KRAIT_CHECK_MPI(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided));
  KRAIT_REQUIRE(CommError, provided >= MPI_THREAD_FUNNELED, "krait::Environment: MPI grants thread level ", provided,
                ", expected at least MPI_THREAD_FUNNELED");
  return true;
}

/// The number of this rank among those of its node.
int rank_in_node() {
  MPI_Comm node = MPI_COMM_NULL;
  KRAIT_CHECK_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node));
  int rank = 0;
  KRAIT_CHECK_MPI(MPI_Comm_rank(node, &rank));
  KRAIT_CHECK_MPI(MPI_Comm_free(&node));
  return rank;
}

void close_mpi() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Finalize();
}

#else

bool open_mpi(int& /*argc*/, char**& /*argv*/) { return false; }
int rank_in_node() { return 0; }
void close_mpi() {}

#endif

#ifdef KOKKOS_ENABLE_CUDA

/// Kokkos ends the program where there is no device.
void require_device() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  KRAIT_REQUIRE(ConfigError, code == cudaSuccess && devices > 0,
                "krait::Environment: this build computes on CUDA devices, and there is none (",
                cudaGetErrorString(code), ")");
}

#else

void require_device() {}

#endif

bool user_chooses_device(int argc, char** argv) {
  if (std::getenv("KOKKOS_DEVICE_ID") != nullptr || std::getenv("KOKKOS_MAP_DEVICE_ID_BY") != nullptr) return true;
  return std::any_of(argv, argv + argc, [](const char* argument) {
    const std::string_view text(argument);
    return text.starts_with("--kokkos-device-id") || text.starts_with("--kokkos-map-device-id-by");
  });
}

/// Kokkos reads one more argument than the user gave; the user's come back without Kokkos's own.
void open_kokkos(int& argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  std::string device;
  if (Kokkos::num_devices() > 1 && argc > 0 && !user_chooses_device(argc, argv)) {
    device = "--kokkos-device-id=" + std::to_string(impl::device_of_rank(rank_in_node(), Kokkos::num_devices()));
    arguments.insert(arguments.begin() + 1, device.data());
  }
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  Kokkos::initialize(count, arguments.data());
  std::copy_n(arguments.begin(), count, argv);
  argc = count;
}

}  // namespace

Environment::Environment(int& argc, char**& argv) {
  require_device();
  closes_mpi_ = open_mpi(argc, argv);
  if (!Kokkos::is_initialized()) {
    KRAIT_REQUIRE(ConfigError, !Kokkos::is_finalized(),
                  "krait::Environment: Kokkos was finalised before, it cannot be opened again");
    open_kokkos(argc, argv);
    closes_kokkos_ = true;
  }
}

Environment::~Environment() {
  if (closes_kokkos_ && !Kokkos::is_finalized()) Kokkos::finalize();
  if (closes_mpi_) close_mpi();
}

}  // namespace krait
