// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// generic/state_rows.hpp in vectors of the widest instruction set that the machine has, chosen at run time, for the
/// four scalars. The columns of the state are the lanes. A sum over them adds lane by lane and the lanes at the end, so
/// its last bits depend on the instruction set, not on threads or on which rows go together.

#include <krait/tile/state_rows.hpp>

namespace krait::tile::host {

template <class T, class A>
void advance_state_rows(const StateRows<T, A>& rows);

}  // namespace krait::tile::host
