// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

namespace krait {

/// Who one is in a group of ranks. Layouts need only this, so they can be built and tested for ranks that do not exist.
struct Place {
  int rank = 0;
  int size = 1;
  friend bool operator==(const Place&, const Place&) = default;
};

}  // namespace krait
