// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// Copies by one thread of a host that leave the caches as they are, in vectors of the widest instruction set that the
/// machine has, chosen at run time. No Kokkos here, for the source with vector instructions.

#include <cstddef>

namespace krait::tile::host {

/// Copies so many bytes, which do not overlap. A store through the caches would load first what it overwrites.
void copy_past_cache(const void* from, void* to, std::size_t bytes);

/// What this thread has copied past its caches is there for all threads that it meets from here on.
void finish_past_cache();

}  // namespace krait::tile::host
