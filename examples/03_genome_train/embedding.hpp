// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensors.hpp"
#include "tokens.hpp"

namespace genome::train {

/// stream[i] = table[inputs[i]]
/// \param table  (symbols, d), row-major
template <class T>
void embed(const Exec& exec, const Symbols& inputs, const Slice<T>& table, const Hidden<T>& stream);

/// Bytes of workspace that embed_backward() wants.
template <class T>
std::size_t embed_backward_bytes(std::int64_t tokens, std::int64_t features);

/// dtable[s] += sum of dstream over the tokens of symbol s. Sums blocks of tokens, whose size is fixed, and then the
/// blocks: always in the same order.
template <class T>
void embed_backward(const Exec& exec, const Symbols& inputs, const Hidden<T>& dstream, const Slice<T>& dtable,
                    T* workspace);

}  // namespace genome::train
