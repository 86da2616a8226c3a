// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Multiply-adds and nothing else, on a host. No Kokkos here, for the sources with vector instructions.

namespace krait::perf {

/// Multiply-adds of registers in the widest vectors that the processor has, whatever the build was compiled for, on the
/// calling thread: some tenths of a millisecond. V is float or double.
/// \return  operations, two for a multiply-add
template <class V>
double fma_burst();

}  // namespace krait::perf
