// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <krait/comm/communicator.hpp>

namespace krait::impl {

/// Runs `check` on every rank of the group and lets all of them throw when one does: the error of the lowest rank that
/// failed, with the same type and text everywhere. Also throws LayoutError when `shared`, values that must be the same
/// on every rank (batch rows, lengths), are not. Collective; meant for the first call with new shapes, never for a
/// steady state.
///
/// \param function  name for the message, e.g. "krait::MambaMixer::forward"
void agree(const Communicator& group, const char* function, const std::vector<std::int64_t>& shared,
           const std::function<void()>& check);

}  // namespace krait::impl
