// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/parallel/conv_scan.hpp>
#include <krait/parallel/plan_slot.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

/// One rank has all tokens and all heads: convolution and scan, no communication.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class Local final : public SequenceOperator<T, Exec> {
 public:
  /// \throws ConfigError for a configuration that can never work
  explicit Local(const SequenceOperatorConfig& config) : config_(config) { config_.validate(); }

  [[nodiscard]] Strategy strategy() const override { return Strategy::local; }

  [[nodiscard]] OperatorRoom room(const Communicator& context, const SequenceLayout& layout,
                                  std::int64_t batch) const override;
  [[nodiscard]] std::size_t workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                            std::int64_t batch, bool overwrite_input) const override;

  /// \throws ConfigError when the communicator has more than one rank
  void forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
               const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
               const SequenceOperatorArguments<T, Exec>& arguments) override;

  /// Saving::full keeps the output of the convolution.
  [[nodiscard]] std::size_t saved_bytes(const Communicator& context, const SequenceLayout& layout, std::int64_t batch,
                                        Saving saving) const override;
  [[nodiscard]] std::int64_t backward_room(const Communicator& context, const SequenceLayout& layout,
                                           std::int64_t batch, Saving saving) const override;
  [[nodiscard]] std::size_t backward_workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                     std::int64_t batch, Saving saving,
                                                     bool overwrite_dy) const override;

  void backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                const SequenceOperatorGradients<T, Exec>& gradients,
                const SequenceOperatorBackwardArguments<T, Exec>& arguments) override;

 private:
  struct BackwardBlocks;
  [[nodiscard]] HeadPartition partition() const;
  [[nodiscard]] BackwardBlocks backward_blocks(const SequenceLayout& layout, std::int64_t batch, Saving saving) const;
  [[nodiscard]] std::int64_t conv_elements(const SequenceLayout& layout, std::int64_t batch) const;
  impl::ConvScan<T, Exec>& plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch);

  SequenceOperatorConfig config_;
  impl::PlanSlot<impl::ConvScan<T, Exec>> slot_;
};

}  // namespace krait
