// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What crosses the cuts of a row into segments: the states that enter them, and the gradients of the states that
/// leave them. Each is a light sweep over the segments side by side, which yields the map of every segment (a factor
/// and an own part), and the composition of the maps.

#include <Kokkos_Core.hpp>

#include <krait/core/mixed_tensor.hpp>
#include <krait/core/scalars.hpp>
#include <krait/ops/ssd_scan_team.hpp>
#include <krait/ops/strided.hpp>

namespace krait::impl {

/// Fills call.segment_states: the states that leave segments 0 ... segments - 2. Needs 2 or more segments.
/// \param name  of the operator, for the kernels' labels
template <Scalar T, class Exec>
void enter_segments(const Exec& exec, const char* name, std::int64_t rows, const SweepCall<T, Exec>& call);

/// Fills call.segment_states with gradients: those of the states that leave segments 0 ... segments - 2.
template <Scalar T, class Exec>
void enter_segments_backward(const Exec& exec, const char* name, std::int64_t rows, const SweepCall<T, Exec>& call,
                             const Strided<const T, 4>& dout, const MixedTensor<T, 4, Exec>& dfinal_states);

}  // namespace krait::impl
