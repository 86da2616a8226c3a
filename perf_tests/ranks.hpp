// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Benchmarks that all ranks of a program run together.

#include <krait/comm/communicator.hpp>

namespace krait::perf {

void register_redistribution(const Communicator& world);
void register_mixer_on_ranks(const Communicator& world);

}  // namespace krait::perf
