// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// What ranks tell each other before a second family can connect them, over the Backend that they have. All of them
/// call it together; it blocks, and no other message of that Backend is under way.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <krait/comm/backend.hpp>

namespace krait::impl {

/// Rank 0's bytes go to all ranks.
void broadcast_bytes(Backend& ranks, std::span<std::byte> bytes);

/// The texts of all ranks, in their order.
std::vector<std::string> gather_texts(Backend& ranks, const std::string& text);

}  // namespace krait::impl
