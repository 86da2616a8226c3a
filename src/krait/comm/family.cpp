// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/family.hpp>

#include <cstdlib>

#include <krait/core/config.hpp>
#include <krait/core/error.hpp>
#ifdef KRAIT_ENABLE_NCCL
#include <krait/comm/nccl/nccl_backend.hpp>
#endif

namespace krait::impl {

CommFamily comm_family(std::string_view name) {
  if (name.empty() || name == "auto") return CommFamily::automatic;
  if (name == "mpi") return CommFamily::mpi;
  KRAIT_REQUIRE(ConfigError, name == "nccl", "krait::Communicator: KRAIT_COMM is '", name,
                "', expected auto, mpi or nccl");
  return CommFamily::nccl;
}

CommFamily wished_family() {
  const char* const name = std::getenv("KRAIT_COMM");
  return comm_family(name == nullptr ? "" : name);
}

std::optional<std::pair<int, int>> sharing_ranks(const std::vector<std::string>& devices) {
  for (std::size_t b = 0; b < devices.size(); ++b) {
    for (std::size_t a = 0; a < b; ++a) {
      if (devices[a] == devices[b]) return std::pair(static_cast<int>(a), static_cast<int>(b));
    }
  }
  return std::nullopt;
}

std::shared_ptr<QueueBackend> make_queue_backend([[maybe_unused]] Backend& hosts, int cuda_device) {
  const CommFamily wish = wished_family();
  if (wish == CommFamily::mpi || cuda_device < 0) return nullptr;
#ifdef KRAIT_ENABLE_NCCL
  const auto sharing = sharing_ranks(gather_texts(hosts, nccl_device_name(cuda_device)));
  if (!sharing) return std::make_shared<NcclBackend>(hosts, cuda_device);
  KRAIT_REQUIRE(ConfigError, wish != CommFamily::nccl, "krait::Communicator: KRAIT_COMM is nccl, but the ranks ",
                sharing->first, " and ", sharing->second,
                " share a device, which NCCL refuses; give each rank another NCCL_HOSTID, or use mpi");
#else
  KRAIT_REQUIRE(ConfigError, wish != CommFamily::nccl,
                "krait::Communicator: KRAIT_COMM is nccl, but this Krait was built without NCCL");
#endif
  return nullptr;
}

}  // namespace krait::impl
