// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <vector>

#include "genome_common/bases.hpp"

namespace genome {

/// A vector for each base: standard normal numbers for A, C, G and T; for an uncertain base the mean of those it may
/// stand for. Single-precision values, so that every run starts from the same numbers.
class Embedding {
 public:
  Embedding(std::int64_t width, std::uint64_t seed);

  [[nodiscard]] std::int64_t width() const { return width_; }
  [[nodiscard]] float operator()(Base base, std::int64_t feature) const {
    return table_[static_cast<std::size_t>(base * width_ + feature)];
  }

 private:
  std::int64_t width_;
  std::vector<float> table_;
};

}  // namespace genome
