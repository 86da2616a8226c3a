// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include <krait/comm/communicator.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/core/workspace.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/mixer/mamba_activations.hpp>
#include <krait/mixer/mamba_config.hpp>
#include <krait/mixer/mamba_gradients.hpp>
#include <krait/mixer/mamba_parameters.hpp>
#include <krait/parallel/agreement.hpp>
#include <krait/parallel/plan_slot.hpp>
#include <krait/parallel/planner.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait {

/// The ranks a mixer runs on and how.
struct Parallel {
  Communicator context = Communicator::self();  ///< ranks that share the sequence
  Communicator tensor = Communicator::self();   ///< ranks that share heads and parameters
  Strategy strategy = Strategy::automatic;
  StateExchange state_exchange = StateExchange::automatic;  ///< of Strategy::state_passing
  Machine machine = {};                              ///< by which `automatic` chooses; must be the same on every rank
  Divisibility divisibility = Divisibility::strict;  ///< `uneven` lets heads and groups not divide by the ranks
};

/// A Mamba-2 mixer: projection, causal convolution, state-space scan, gated norm, projection, over a sequence whose
/// tokens are spread over the ranks of a communicator.
///
///     hidden (b, l, d_model) -> z | xBC | dt -> conv + scan over the whole sequence -> norm(y * silu(z)) -> out
///
/// T is the storage of activations and projection weights; everything is accumulated, and all other parameters are
/// kept, in accumulator_t<T>. A mixer must end before Kokkos::finalize.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class MambaMixer {
 public:
  using Hidden = Tensor<const T***, Exec>;
  using Output = Tensor<T***, Exec>;

  /// \param workspace  memory for intermediates, which the layers of a stack may share; its own when null
  /// \throws ConfigError when the configuration, or the configuration with these ranks, can never work
  MambaMixer(const Exec& exec, const MambaConfig& config, Parallel parallel = {},
             std::shared_ptr<Workspace<Exec>> workspace = nullptr);

  /// Draws initial parameters; see krait::initialize(). Blocks until done.
  void initialize(std::uint64_t seed, const InitializationStyle& style = {});

  [[nodiscard]] const MambaConfig& config() const { return config_; }
  [[nodiscard]] const Parallel& parallel() const { return parallel_; }
  [[nodiscard]] const MambaParameters<T, Exec>& parameters() const { return parameters_; }
  /// Which heads, groups and columns a rank of the context works on.
  [[nodiscard]] HeadPartition partition(const Place& context) const;
  /// How calls with this layout and batch run over the ranks, and why: what was asked for, or what a Planner chose for
  /// forward and backward together.
  [[nodiscard]] const Choice& choice(const SequenceLayout& layout, std::int64_t batch) const;
  [[nodiscard]] const std::shared_ptr<Workspace<Exec>>& workspace() const { return workspace_; }

  /// Bytes of workspace that forward() needs on this rank. On P ranks that divide heads and groups it is 1/P of the
  /// one-rank figure and, when P > 1, of the dt columns once more; nothing else grows with the length.
  [[nodiscard]] std::size_t workspace_bytes(const SequenceLayout& layout, std::int64_t batch) const;

  /// One document per row.
  /// \param hidden  (b, layout.local_length(), d_model), any strides
  /// \param out     same extents, overwritten; may be hidden itself, but must not overlap it otherwise
  void forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout, const Output& out);

  /// Packed rows: convolution and state start afresh at every document of `documents`.
  /// \throws LayoutError when layout, documents and ranks contradict each other; ShapeError when an extent disagrees;
  ///         on every rank alike, before the first message. The ranks agree once per function, layout and document map;
  ///         in later calls with the same ones each rank checks its own tensors alone.
  void forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout, const DocumentMap& documents,
               const Output& out);

  /// The same over another communicator than the one of construction.
  void forward(const Exec& exec, const Communicator& context, const Hidden& hidden, const SequenceLayout& layout,
               const DocumentMap& documents, const Output& out);

  /// \name Training
  /// A forward that keeps what its backward needs, and that backward. Keep one MambaActivations per mixer and call.
  /// \{

  /// Bytes that a training forward keeps on this rank. Per local token, with e bytes of T, a of accumulator_t<T>,
  /// tensor local widths and G norm groups:
  ///
  ///     e (2 d_inner + 2 groups d_state + heads)  the projection
  ///     e d_inner                                 y before gate and norm
  ///     a G                                       with rmsnorm: the reciprocal roots of the norm
  ///
  /// and what the operator keeps, more with use_mem_eff_path = false; see SequenceOperator::saved_bytes(). Each part is
  /// rounded up to 128 bytes.
  [[nodiscard]] std::size_t saved_bytes(const SequenceLayout& layout, std::int64_t batch) const;

  /// Bytes of workspace that backward() needs on this rank, and no less than a training forward, which reserves them.
  [[nodiscard]] std::size_t backward_workspace_bytes(const SequenceLayout& layout, std::int64_t batch) const;

  /// As forward() without `kept`, which gets what backward() needs. `out` may replace `hidden` only when the caller has
  /// a copy of `hidden` for the backward.
  void forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout, const Output& out,
               MambaActivations<T, Exec>& kept);
  void forward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout, const DocumentMap& documents,
               const Output& out, MambaActivations<T, Exec>& kept);
  void forward(const Exec& exec, const Communicator& context, const Hidden& hidden, const SequenceLayout& layout,
               const DocumentMap& documents, const Output& out, MambaActivations<T, Exec>& kept);

  /// Gradients of the call that filled `kept`.
  /// \param hidden     as given to that forward
  /// \param dout       (b, layout.local_length(), d_model), gradient of its output
  /// \param dhidden    same extents, overwritten with the gradient of `hidden`, complete on every rank; may be dout
  ///                   itself, but must not overlap dout otherwise, nor hidden
  /// \param gradients  of this rank's parameters, added to. Partial where the context has several ranks: see
  ///                   reduce_gradients(). Complete over tensor ranks.
  /// \throws LayoutError when layout or documents are not those of the forward; ShapeError when an extent, or the
  ///         batch, disagrees, or dhidden is hidden; ConfigError when no forward has filled `kept`, or that of another
  ///         mixer has. On every rank alike, before the first message, under the conditions of forward().
  void backward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout,
                const MambaActivations<T, Exec>& kept, const Hidden& dout, const Output& dhidden,
                const MambaGradients<T, Exec>& gradients);
  void backward(const Exec& exec, const Hidden& hidden, const SequenceLayout& layout, const DocumentMap& documents,
                const MambaActivations<T, Exec>& kept, const Hidden& dout, const Output& dhidden,
                const MambaGradients<T, Exec>& gradients);
  void backward(const Exec& exec, const Communicator& context, const Hidden& hidden, const SequenceLayout& layout,
                const DocumentMap& documents, const MambaActivations<T, Exec>& kept, const Hidden& dout,
                const Output& dhidden, const MambaGradients<T, Exec>& gradients);
  /// \}

 private:
  struct Buffers;
  struct TrainingBuffers;
  struct KeptTensors;
  /// Where a forward or backward runs.
  struct Call {
    const Communicator& context;
    const SequenceLayout& layout;
    const DocumentMap& documents;
    bool documents_given = true;
  };

  [[nodiscard]] SequenceOperatorConfig local() const;
  [[nodiscard]] Saving saving() const { return config_.use_mem_eff_path ? Saving::lean : Saving::full; }
  [[nodiscard]] SequenceOperator<T, Exec>& sequence_operator(const SequenceLayout& layout, std::int64_t batch) const;
  [[nodiscard]] SequenceOperatorParameters<T, Exec> operator_parameters() const;
  [[nodiscard]] Buffers buffers(const Communicator& context, const SequenceLayout& layout, std::int64_t batch) const;
  [[nodiscard]] TrainingBuffers training_buffers(const Communicator& context, const SequenceLayout& layout,
                                                 std::int64_t batch) const;
  [[nodiscard]] impl::ActivationBlocks activation_blocks(const Communicator& context, const SequenceLayout& layout,
                                                         std::int64_t batch) const;
  [[nodiscard]] KeptTensors kept_tensors(const MambaActivations<T, Exec>& kept) const;
  const DocumentMap& whole_rows(const SequenceLayout& layout, std::int64_t batch);

  void check_call(const char* function, const Call& call) const;
  void check_tensor(const char* function, const char* name, const Hidden& tensor, const Call& call) const;
  void check_kept(const Call& call, const MambaActivations<T, Exec>& kept) const;
  void check_gradients(const MambaGradients<T, Exec>& gradients) const;

  /// The checks of a call: all ranks of the context and of the tensor group refuse it, or none does.
  void agree(const char* function, const Call& call, const std::function<void()>& check);

  void run(const Exec& exec, const Call& call, const Hidden& hidden, const Output& out);
  void run_training(const Exec& exec, const Call& call, const Hidden& hidden, const Output& out,
                    MambaActivations<T, Exec>& kept);
  void run_backward(const Exec& exec, const Call& call, const Hidden& hidden, const MambaActivations<T, Exec>& kept,
                    const Hidden& dout, const Output& dhidden, const MambaGradients<T, Exec>& gradients);
  /// Through out_proj and the norm; `gated` gets the norm's output once more.
  void backward_to_y(const Exec& exec, const KeptTensors& tensors, const Hidden& dout, const Output& dy,
                     const Output& dz, const Output& gated, const Tensor<std::byte*, Exec>& scratch,
                     const MambaGradients<T, Exec>& gradients) const;
  void project_in(const Exec& exec, const Hidden& hidden, std::int64_t first, const Output& into) const;
  void gate_and_norm(const Exec& exec, const Hidden& y, const Hidden& z, const Output& out,
                     const Tensor<accumulator_t<T>***, Exec>& rstd) const;
  void project_out(const Exec& exec, const Hidden& gated, const Output& out) const;
  void add_over_tensor_ranks(const Exec& exec, std::size_t partial_offset, std::size_t sum_offset,
                             const Output& out) const;

  MambaConfig config_;
  Parallel parallel_;
  MambaParameters<T, Exec> parameters_;
  std::shared_ptr<Workspace<Exec>> workspace_;
  mutable std::map<std::pair<Strategy, StateExchange>, std::unique_ptr<SequenceOperator<T, Exec>>> operators_;
  mutable impl::PlanSlot<Choice> choice_;
  impl::PlanSlot<DocumentMap> documents_;  ///< of the last layout that came without documents
  impl::AgreedCall agreed_;
  impl::AgreedCall agreed_by_tensor_ranks_;
};

}  // namespace krait
