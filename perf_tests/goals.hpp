// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What docs/performance.md aims at, in the counters of the benchmarks.

namespace krait::perf {

struct Goal {
  const char* rows;     ///< regular expression of the names it holds for; the first goal that fits a row is its own
  const char* counter;  ///< that has to reach it
  bool at_least;        ///< or at most
  double value;
};

inline constexpr Goal goals[] = {
    {"^ssd_scan/forward(_slow)?/mamba2_2p7b/float/", "flops_fraction", true, 0.65},
    {"^ssd_scan/forward(_slow)?/nemotron_h_8b/float/", "flops_fraction", true, 0.55},
    {"^ssd_scan/forward(_slow)?/odd/float/", "flops_fraction", true, 0.25},
    {"^ssd_scan/forward(_slow)?/mamba2_2p7b/double/", "flops_fraction", true, 0.50},
    {"^ssd_scan/recurrence/", "scan_speedup", true, 1},
    {"^ssd_scan/backward(_slow)?/.*/float/", "backward_over_forward", false, 2.6},
    {"^(causal_conv1d|gated_rms_norm)/.*/float/", "copy_fraction", true, 0.80},
    {"^state_update/.*/float/", "copy_fraction", true, 0.80},
    {"^mamba_mixer/forward/mamba2_130m/float/L:16384/T:[0-9]+$", "bound_fraction", true, 0.60},
    {"^mamba_mixer/backward/.*/float/.*T:[0-9]+$", "backward_over_forward", false, 2.4},
    {"^mamba_mixer/.*/(mamba2_130m|mamba2_2p7b)/float/L:16384/T:1/P:2$", "speedup", true, 1.85},
    {"^redistribution/.*/(mamba2_2p7b|nemotron_h_8b)/float/.*/P:[0-9]+$", "over_alltoall", false, 1.15},
};

}  // namespace krait::perf
