// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <iosfwd>
#include <krait/parallel/machine.hpp>
#include <string>

namespace plan {

/// A machine as a JSON object of its members, one a line, in digits that read back to the same machine.
void write_machine(std::ostream& stream, const krait::Machine& machine);

/// What write_machine() wrote; members may be left out, and then are those of `defaults`.
/// \throws krait::ConfigError naming the file, and the member that is unknown or no positive number
krait::Machine read_machine(const std::string& path, const krait::Machine& defaults = {});

}  // namespace plan
