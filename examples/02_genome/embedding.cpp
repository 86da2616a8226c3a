// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "embedding.hpp"

#include <bit>
#include <krait/core/random.hpp>

namespace genome {
namespace {

constexpr std::uint64_t embedding_stream = 2;
constexpr int nucleotides = 4;

}  // namespace

Embedding::Embedding(std::int64_t width, std::uint64_t seed)
    : width_(width), table_(static_cast<std::size_t>(base_codes * width)) {
  for (unsigned base = 1; base < base_codes; ++base) {
    for (std::int64_t feature = 0; feature < width; ++feature) {
      double sum = 0;
      for (int nucleotide = 0; nucleotide < nucleotides; ++nucleotide) {
        if ((base >> nucleotide & 1U) == 0) continue;
        sum += krait::normal(seed, embedding_stream, static_cast<std::uint64_t>(nucleotide * width + feature));
      }
      table_[static_cast<std::size_t>(base * width + feature)] = static_cast<float>(sum / std::popcount(base));
    }
  }
}

}  // namespace genome
