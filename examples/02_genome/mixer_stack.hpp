// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <krait/core/workspace.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/mixer/mamba_mixer.hpp>
#include <memory>
#include <vector>

#include "genome_common/program.hpp"
#include "genome_common/progress.hpp"
#include "options.hpp"

namespace genome {

using Mixer = krait::MambaMixer<float, Exec>;
using Hidden = Kokkos::View<float***, Kokkos::LayoutRight, Exec>;

/// Epsilon of the norm before each mixer.
inline constexpr double norm_epsilon = 1e-5;

/// The mixers' configuration: head_dim 32, 8 groups, d_state 32, so that 4 ranks share heads and groups evenly.
krait::MambaConfig mixer_config(const Options& options);

/// A stack of layers, each  stream += mixer(norm(stream)),  with a root-mean-square norm of weight 1. All layers use
/// one workspace.
class MixerStack {
 public:
  /// \param ranks     who shares the sequence; the parameters depend on the options alone
  /// \param strategy  how they run the mixers
  /// \throws krait::ConfigError when the options and the ranks can never work together
  MixerStack(const Exec& exec, const Options& options, const krait::Communicator& ranks, krait::Strategy strategy);

  [[nodiscard]] const std::vector<Mixer>& mixers() const { return mixers_; }

  /// Runs all layers on `stream`, (1, local tokens, d_model), in place. Collective over the stack's ranks.
  void forward(const Exec& exec, const krait::SequenceLayout& layout, const Hidden& stream, Progress& progress);

  /// Bytes that a forward() needs on this rank by the mixers' own account, the stream included.
  [[nodiscard]] std::size_t activation_bytes(const krait::SequenceLayout& layout) const;

 private:
  krait::Strategy strategy_;
  std::vector<Mixer> mixers_;
  Kokkos::View<float*, Exec> norm_weight_;
};

}  // namespace genome
