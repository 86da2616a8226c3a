// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <krait/comm/communicator.hpp>
#include <krait/layout/sequence_layout.hpp>

#include "adamw.hpp"
#include "checkpoint.hpp"
#include "genome_common/sequence.hpp"
#include "loss_log.hpp"
#include "model.hpp"
#include "options.hpp"

namespace genome::train {

/// Trains a model on one sequence, step by step, on the ranks that share it. Every rank holds the same parameters, bit
/// for bit.
class Trainer {
 public:
  /// \throws krait::ConfigError on every rank alike
  Trainer(const Exec& exec, const krait::Communicator& ranks, const Options& options, const Sequence& sequence);

  [[nodiscard]] const Model<float>& model() const { return model_; }
  [[nodiscard]] const krait::SequenceLayout& layout() const { return layout_; }
  [[nodiscard]] std::int64_t steps_done() const { return done_; }
  [[nodiscard]] double first_loss() const { return first_loss_; }  ///< in bits per base

  /// Bytes of parameters, gradients and moments: what every rank has in full.
  [[nodiscard]] std::int64_t constant_bytes() const;

  /// One step: loss, gradient, update. Without an update where the loss or the gradient is not finite. Collective.
  Step step();

  /// The state of this rank, which is every rank's.
  [[nodiscard]] Checkpoint checkpoint() const;
  /// \throws krait::ConfigError when the checkpoint does not fit
  void restore(const Checkpoint& checkpoint);

  /// Whether all ranks hold the same bits. Collective.
  [[nodiscard]] bool parameters_agree() const;

 private:
  Exec exec_;
  krait::Communicator ranks_;
  Schedule schedule_;
  double clip_;
  krait::SequenceLayout layout_;
  Tokens tokens_;
  Model<float> model_;
  AdamW optimiser_;
  Activations<float> activations_;
  std::int64_t done_ = 0;
  double first_loss_ = 0;
};

}  // namespace genome::train
