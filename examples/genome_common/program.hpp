// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <functional>
#include <krait/comm/communicator.hpp>
#include <string>
#include <vector>

namespace genome {

using Exec = Kokkos::DefaultExecutionSpace;

/// What a program does between start and end. Collective.
/// \return what is wrong with the result: as many lines on every rank, with their text on rank 0; none when all is well
/// \throws krait::Error on every rank alike when the input or the options are no good
using Job = std::function<std::vector<std::string>(const Exec& exec, const krait::Communicator& world, int argc,
                                                   const char* const* argv)>;

/// The body of main(): opens MPI and Kokkos, answers --help, runs the job and says once what was wrong.
/// \return the exit status
int run_program(const std::string& name, const std::string& help, const Job& job, int argc, char** argv);

}  // namespace genome
