// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/comm/communicator.hpp>
#include <string>
#include <vector>

#include "genome_common/program.hpp"
#include "options.hpp"

namespace genome::train {

/// Reads, trains, logs, saves and reports; rank 0 prints and writes. Collective.
/// \return what is wrong with the result, a line each, on every rank alike; none when all is well
/// \throws krait::Error on every rank alike when the input, a file or the options are no good
std::vector<std::string> run_job(const Exec& exec, const krait::Communicator& world, const Options& options);

}  // namespace genome::train
