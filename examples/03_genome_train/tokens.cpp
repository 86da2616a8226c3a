// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "tokens.hpp"

#include <krait/core/error.hpp>
#include <string>

#include "symbols.hpp"

namespace genome::train {

Tokens make_tokens(const Exec& exec, const krait::SequenceLayout& layout, const Sequence& sequence) {
  if (layout.length() < 2) {
    throw krait::ConfigError("a sequence of at least 2 bases is needed to predict the next one, got " +
                             std::to_string(layout.length()));
  }
  const auto count = static_cast<std::size_t>(layout.local_length());
  const Kokkos::View<std::int32_t*, Exec> inputs("krait_genome_train::inputs", count);
  const Kokkos::View<std::int32_t*, Exec> targets("krait_genome_train::targets", count);
  const auto host_inputs = Kokkos::create_mirror_view(inputs);
  const auto host_targets = Kokkos::create_mirror_view(targets);
  const auto symbol_at = [&](std::int64_t token) { return static_cast<std::int32_t>(symbol_of(sequence.at(token))); };
  for (std::int64_t i = 0; i < layout.local_length(); ++i) {
    const std::int64_t token = layout.global_of_local(i);
    host_inputs(i) = symbol_at(token);
    host_targets(i) = token + 1 < layout.length() ? symbol_at(token + 1) : no_target;
  }
  Kokkos::deep_copy(exec, inputs, host_inputs);
  Kokkos::deep_copy(exec, targets, host_targets);
  exec.fence("krait_genome_train: tokens are in place");
  return {inputs, targets, layout.length() - 1};
}

}  // namespace genome::train
