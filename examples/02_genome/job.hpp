// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/comm/communicator.hpp>
#include <string>
#include <vector>

#include "mixer_stack.hpp"
#include "options.hpp"

namespace genome {

/// Reads, runs, compares and reports; rank 0 prints. Collective.
/// \return what is wrong with the result: as many lines on every rank, with their text on rank 0; none when all is well
/// \throws krait::Error on every rank alike when the input or the options are no good
std::vector<std::string> run_job(const Exec& exec, const krait::Communicator& world, const Options& options);

}  // namespace genome
