// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait::perf {

/// Says in every report where and with what it was measured.
void add_context();

/// Runs the benchmarks that the command line asks for, and prints where they stand against their goals.
/// \param speaks  false: prints and writes nothing
/// \return  0, or 1 when one of them failed or there were none
int run_benchmarks(bool speaks);

}  // namespace krait::perf
