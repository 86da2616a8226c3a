// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/parallel/agreement.hpp>
#include <krait/parallel/plan_slot.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

namespace impl {
template <Scalar T, class Exec>
struct PassingExchanges;
template <Scalar T, class Exec>
struct PassingPlan;
}  // namespace impl

/// Every rank keeps its tokens and all heads; ranks hand each other what the sequence before them has left behind. A
/// segment (consecutive tokens of one rank) acts on the state of a head as S_out = alpha S_in + E, so it is enough to
/// exchange (E, log alpha) once, and the last d_conv - 1 inputs before each segment for the convolution. What travels
/// does not grow with the sequence.
///
///     rank 0  tokens 0 1 6 7     halo: 5 -> 0      E, alpha of 0..1 and of 6..7       S before 6
///     rank 1  tokens 2 3 4 5           1 -> 1                    2..5                 S before 2
///
/// Any layout, no constraint on heads and groups. A shard in zigzag order is two segments; an explicit layout may have
/// many, and each costs a state. Documents cut the chain where they begin.
///
/// States of documents enter on the rank that has the document's first token, and leave on the one that has its last;
/// nothing more is sent for them. A window of the convolution that reaches over a whole segment, or several, still
/// finds the document's initial state, since every rank has it. Calls with such states keep what belongs to the pieces
/// of documents in memory of this object: how many there are, no query of the workspace knows.
///
/// A forward convolves, summarizes its segments (which reads only the tokens whose effect reaches the segment's end),
/// exchanges, and scans with the states that enter. The backward mirrors it: gradients of states go the other way, and
/// those of the halo go home. Both do so by blocks of heads, so that the states of one travel while others are worked
/// on (head_blocks.hpp); ranks must have the same number of blocks, else the first call throws LayoutError.
///
/// Upstream has no counterpart for packed or zigzag sequences. Source of the algebra: Dao and Gu 2024, arXiv
/// 2405.21060, section 6 (the recurrence between chunks), one level up.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class StatePassing final : public SequenceOperator<T, Exec> {
 public:
  /// \throws ConfigError for a configuration that can never work
  explicit StatePassing(const SequenceOperatorConfig& config);
  ~StatePassing() override;

  [[nodiscard]] Strategy strategy() const override { return Strategy::state_passing; }

  /// None: the output of the convolution has the size of a shard, in `workspace`.
  [[nodiscard]] OperatorRoom room(const Communicator& context, const SequenceLayout& layout,
                                  std::int64_t batch) const override;
  [[nodiscard]] std::size_t workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                            std::int64_t batch, bool overwrite_input) const override;

  void forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
               const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
               const SequenceOperatorArguments<T, Exec>& arguments) override;

  /// The states that entered and the halo; Saving::full also keeps the output of the convolution.
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
  using Exchanges = impl::PassingExchanges<T, Exec>;
  using Plan = impl::PassingPlan<T, Exec>;
  template <class Make>
  [[nodiscard]] auto with_exchanges(const SequenceLayout& layout, std::int64_t batch, const Make& make) const;
  [[nodiscard]] std::size_t scratch_bytes(const SequenceLayout& layout, std::int64_t batch) const;
  Plan& plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch);

  SequenceOperatorConfig config_;
  impl::AgreedCall agreed_;
  impl::PlanSlot<Plan> slot_;
};

}  // namespace krait
