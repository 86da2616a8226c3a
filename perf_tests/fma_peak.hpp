// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait::perf {

/// Single-precision multiply-adds per second that `threads` threads of this machine reach together, counted as two
/// operations each: the widest vectors the processor has, whatever the build was compiled for. Takes half a second.
double measure_fma_peak(int threads);

}  // namespace krait::perf
