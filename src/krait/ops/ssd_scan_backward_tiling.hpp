// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// How the backward of a scan is cut into pieces of work.

namespace krait::impl {

/// The piece of work of a team. A zero stands for the plan's own choice.
struct SsdScanBackwardTiling {
  int chunk = 0;          ///< tokens at a time
  int head_block = 0;     ///< heads of one group that a team walks together, sharing <C, B> and the sums dB and dC
  int team_size = 0;      ///< threads
  int scratch_level = 0;  ///< 0 on chip, 1 in global memory; on hosts both are ordinary memory
};

}  // namespace krait::impl
