// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The functions of generic/token_rows.hpp, for the four scalars, in vectors of the widest instruction set that the
/// machine has, chosen at run time.

#include <krait/tile/token_rows.hpp>

namespace krait::tile::host {

template <class T, class A>
void load_rows(const InputRows<T, A>& rows);

template <class T, class A>
void store_rows(const OutputRows<T, A>& rows);

}  // namespace krait::tile::host
