// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The scan token by token, as one would write it for a CPU: the baseline of the scan in chunks. No Kokkos here, for
/// the sources with vector instructions.

#include <cstdint>

namespace krait::perf {

/// One head of one row, from a state of zeros. V is float or double.
///
///     delta_t = softplus(dt_t),   S_t = exp(delta_t A) S_{t-1} + delta_t x_t (outer) B_t,   y_t = S_t C_t + D x_t
template <class V>
struct Recurrence {
  std::int64_t length;
  std::int64_t head_dim;
  std::int64_t d_state;
  const V* x;   ///< (length, head_dim), tokens `x_pitch` elements apart
  const V* dt;  ///< (length), `dt_pitch` elements apart
  const V* B;   ///< (length, d_state), tokens `group_pitch` elements apart
  const V* C;   ///< likewise
  std::int64_t x_pitch;
  std::int64_t dt_pitch;
  std::int64_t group_pitch;
  V A;
  V D;
  V* state;  ///< recurrence_state_size() elements
  V* out;    ///< like x
};

/// Elements of a state, whose channels are filled up to whole vectors.
template <class V>
std::int64_t recurrence_state_size(std::int64_t head_dim, std::int64_t d_state);

/// With the vectors that the processor has: channels are lanes; the state stays in the first-level cache while the
/// tokens pass by, two at a time, so that it is loaded and stored once for both.
template <class V>
void run_recurrence(const Recurrence<V>& head);

}  // namespace krait::perf
