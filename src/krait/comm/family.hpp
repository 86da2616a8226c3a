// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Which family carries the messages of a device.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <krait/comm/backend.hpp>

namespace krait::impl {

enum class CommFamily { automatic, mpi, nccl };

/// "auto", "mpi", "nccl"; empty is automatic.
/// \throws ConfigError for another name
CommFamily comm_family(std::string_view name);

/// What the variable KRAIT_COMM says.
CommFamily wished_family();

/// Two ranks that have the same device, or nothing.
/// \param devices  a text for each rank that names its machine and its device
std::optional<std::pair<int, int>> sharing_ranks(const std::vector<std::string>& devices);

/// The family that orders messages on a device, for the ranks of `hosts`; null where that is left to MPI. All ranks
/// call it together.
/// \param cuda_device  of this rank; negative: the messages are not of CUDA
/// \throws ConfigError where NCCL is asked for and cannot be used
std::shared_ptr<QueueBackend> make_queue_backend(Backend& hosts, int cuda_device);

}  // namespace krait::impl
