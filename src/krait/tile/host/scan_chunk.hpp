// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// generic/scan_chunk.hpp in vectors of the widest instruction set that the machine has, chosen at run time. The
/// channels are the lanes. A block of the state is loaded once per chunk: outputs are taken from it and the update is
/// added to it while it lies in registers.

#include <krait/tile/scan_chunk.hpp>

namespace krait::tile::host {

/// A: float or double.
template <class A>
void scan_heads(const ScanHeads<A>& chunk);

}  // namespace krait::tile::host
