// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "context_entropy.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "symbols.hpp"

namespace genome::train {
namespace {

double context_entropy(const std::vector<std::size_t>& sequence, std::size_t order) {
  if (sequence.size() <= order) return 0;
  std::size_t contexts = 1;
  for (std::size_t i = 0; i < order; ++i) contexts *= symbols;
  std::vector<std::int64_t> counts(contexts * symbols);

  std::size_t word = 0;  // the last `order` + 1 symbols as a number
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    word = (word * symbols + sequence[i]) % counts.size();
    if (i >= order) ++counts[word];
  }

  double bits = 0;
  for (std::size_t context = 0; context < contexts; ++context) {
    const auto* next = &counts[context * symbols];
    double total = 0;
    for (int symbol = 0; symbol < symbols; ++symbol) total += static_cast<double>(next[symbol]);
    for (int symbol = 0; symbol < symbols; ++symbol) {
      const auto count = static_cast<double>(next[symbol]);
      if (count > 0) bits += count * std::log2(total / count);
    }
  }
  return bits / static_cast<double>(sequence.size() - order);
}

}  // namespace

std::vector<double> context_entropies(const Sequence& sequence, int highest_order) {
  std::vector<std::size_t> numbers;
  for (std::int64_t token = 0; token < sequence.length; ++token) {
    numbers.push_back(static_cast<std::size_t>(symbol_of(sequence.at(token))));
  }
  std::vector<double> result;
  for (int order = 0; order <= highest_order; ++order) {
    result.push_back(context_entropy(numbers, static_cast<std::size_t>(order)));
  }
  return result;
}

}  // namespace genome::train
