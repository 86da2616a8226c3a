// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/workspace.hpp>
#include <krait/layout/redistribution.hpp>
#include <krait/parallel/agreement.hpp>
#include <krait/parallel/plan_slot.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

namespace impl {
template <Scalar T, class Exec>
struct HiddenExchanges;
template <Scalar T, class Exec>
struct HiddenPlan;
template <Scalar T, class Exec>
struct HiddenBlocks;
template <Scalar T, class Exec>
struct HiddenSaved;
template <Scalar T, class Exec>
struct HiddenGradientBlocks;
}  // namespace impl

/// Tokens for heads and back (all-to-all). One exchange gives every rank the whole sequence of its share of the heads,
/// where convolution and scan run as on one rank; a second one brings the outputs home. The gate z never leaves its
/// rank.
///
///     rank 0  tokens 0 1 6 7, all heads          tokens 0..7, heads 0 1          tokens 0 1 6 7, all heads
///     rank 1  tokens 2 3 4 5, all heads   ==>    tokens 0..7, heads 2 3   ==>    tokens 2 3 4 5, all heads
///                                        enter        conv, scan         leave
///
/// The backward goes the same way: what entered is entered again together with dy, or only dy where the forward saved
/// the rest; the gradients of x, B, C and dt come home, where the parts of a group that ranks share are added up. So
/// both directions have two collectives.
///
/// Both may cut the share of every rank in blocks of heads, SequenceOperatorConfig::head_blocks (head_blocks.hpp says
/// what is taken when that is 0): the second travels there while the first is convolved and scanned, and the first
/// travels back while the second is. The same bytes in more messages. Ranks must have the same number of blocks, else
/// the first call throws LayoutError.
///
/// In a forward B and C come with the first block, and the bits are the same. In a backward they travel by themselves:
/// there before all blocks, their gradients back behind them, since each block adds its own. The part of a group that
/// blocks share is added up in ascending order of blocks, each sum rounded to T; all else has the same bits.
///
/// Counterpart upstream: Megatron-LM's and NeMo's MambaContextParallel; here one exchange each way instead of five and
/// one, for any layout, batch and rank count.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class HiddenParallel final : public SequenceOperator<T, Exec> {
 public:
  /// \throws ConfigError for a configuration that can never work
  explicit HiddenParallel(const SequenceOperatorConfig& config);
  ~HiddenParallel() override;

  [[nodiscard]] Strategy strategy() const override { return Strategy::hidden_parallel; }

  [[nodiscard]] OperatorRoom room(const Communicator& context, const SequenceLayout& layout,
                                  std::int64_t batch) const override;
  [[nodiscard]] std::size_t workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                            std::int64_t batch, bool overwrite_input) const override;

  /// Two collectives on the context: one all_to_all_v in, one out; with blocks of heads as many of each.
  /// \throws ConfigError when heads and groups do not suit the number of ranks; see Divisibility
  void forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
               const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
               const SequenceOperatorArguments<T, Exec>& arguments) override;

  /// Saving::full keeps what arrived and the output of the convolution.
  [[nodiscard]] std::size_t saved_bytes(const Communicator& context, const SequenceLayout& layout, std::int64_t batch,
                                        Saving saving) const override;
  [[nodiscard]] std::int64_t backward_room(const Communicator& context, const SequenceLayout& layout,
                                           std::int64_t batch, Saving saving) const override;
  [[nodiscard]] std::size_t backward_workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                     std::int64_t batch, Saving saving,
                                                     bool overwrite_dy) const override;

  /// Two collectives on the context; with several blocks of heads as many of each and one more, or with Saving::full
  /// one more of the second only.
  void backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                const SequenceOperatorGradients<T, Exec>& gradients,
                const SequenceOperatorBackwardArguments<T, Exec>& arguments) override;

  /// \name The two exchanges as steps of their own, for users who bring their own convolution and scan
  /// Both return tensors in memory of this object, valid until its next call; on one rank with tokens in order they
  /// return their argument.
  /// \{

  /// Sequence shards with all heads to whole sequences, in sequential order, with this rank's heads.
  /// \param in  (b, local_length, W) with columns z | x | B | C | dt, or without z
  /// \return    (b, length, local W) with the columns of partition().projection_sections()
  Tensor<const T***, Exec> pre_conv_ssm(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                        const Tensor<const T***, Exec>& in);
  /// The way back, for the scan's output.
  /// \param in  (b, length, local d_inner) in sequential order
  /// \return    (b, local_length, d_inner)
  Tensor<const T***, Exec> post_conv_ssm(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                                         const Tensor<const T***, Exec>& in);
  /// \}

  /// Which heads, groups, columns and parameter rows a rank of the context works on.
  [[nodiscard]] HeadPartition partition(const Place& context) const;

 private:
  using Exchanges = impl::HiddenExchanges<T, Exec>;
  using Plan = impl::HiddenPlan<T, Exec>;
  using Blocks = impl::HiddenBlocks<T, Exec>;
  using Saved = impl::HiddenSaved<T, Exec>;
  using GradientBlocks = impl::HiddenGradientBlocks<T, Exec>;
  /// use(what exchanges there are).
  template <class Use>
  auto with_exchanges(const Communicator& context, const SequenceLayout& layout, std::int64_t batch,
                      const Use& use) const;
  [[nodiscard]] GradientBlocks gradient_blocks(const Communicator& context, const SequenceLayout& layout,
                                               std::int64_t batch, Saving saving) const;
  Plan& plan_for(const Exec& exec, const SequenceLayout& layout, std::int64_t batch);

  SequenceOperatorConfig config_;
  impl::AgreedCall agreed_;
  impl::PlanSlot<Plan> slot_;
  Workspace<Exec> steps_{"krait::HiddenParallel::steps"};  ///< of the named steps
};

}  // namespace krait
