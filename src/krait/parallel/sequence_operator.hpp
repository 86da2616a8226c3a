// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

/// \file
/// The heart of Krait: convolution and scan as one operator over a sequence that may be split across ranks. Local shard
/// of `xBCdt` in, local shard of `y` out; what happens between is the strategy's business. So is what happens in the
/// backward: local shard of `dy` in, local shard of `dxBCdt` out.

#include <Kokkos_Core.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include <krait/comm/communicator.hpp>
#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/layout/head_partition.hpp>
#include <krait/layout/sequence_layout.hpp>
#include <krait/ops/activation.hpp>
#include <krait/parallel/saving.hpp>
#include <krait/parallel/strategy.hpp>

namespace krait {

/// Extents and options that every rank shares.
struct SequenceOperatorConfig {
  std::int64_t heads = 1;
  std::int64_t head_dim = 64;
  std::int64_t groups = 1;
  std::int64_t d_state = 128;
  std::int64_t d_conv = 4;
  std::int64_t chunk_size = 128;
  Activation activation = Activation::silu;
  /// Clamp of the step size after the softplus.
  std::pair<double, double> dt_limit = {0.0, std::numeric_limits<double>::infinity()};
  Divisibility divisibility = Divisibility::strict;
  /// How Strategy::state_passing exchanges states; the others have none to exchange.
  StateExchange state_exchange = StateExchange::automatic;
  /// Blocks of heads in which exchanges and the work between them go (the backward of Strategy::state_passing scans all
  /// at once): what one block needs or makes travels while others are worked on. Equal on all ranks. 0:
  /// Strategy::state_passing takes two where messages remain large and the threads equally busy,
  /// Strategy::hidden_parallel two on a device where every rank has 8 heads or more, else one. The latter never takes
  /// more than every rank has heads.
  std::int64_t head_blocks = 0;

  [[nodiscard]] std::int64_t d_inner() const { return heads * head_dim; }
  /// Channels of the convolution: x, B and C.
  [[nodiscard]] std::int64_t conv_channels() const { return d_inner() + 2 * groups * d_state; }
  /// Columns of `xBCdt`.
  [[nodiscard]] std::int64_t input_width() const { return conv_channels() + heads; }

  /// \throws ConfigError naming the value that no operator can work with, on any number of ranks
  void validate() const;
};

/// Full-size parameters, the same on every rank; read at every call, so their storage may change between calls.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SequenceOperatorParameters {
  Tensor<const accumulator_t<T>**, Exec> conv_weight;         ///< (conv_channels, d_conv)
  Tensor<const accumulator_t<T>*, Exec> conv_bias = {};       ///< (conv_channels), optional
  Tensor<const accumulator_t<T>*, Exec> A_log;                ///< (heads); A = -exp(A_log)
  Tensor<const accumulator_t<T>*, Exec> dt_bias = {};         ///< (heads), optional
  Tensor<const accumulator_t<T>*, Exec> D = {};               ///< (heads), optional
  Tensor<const accumulator_t<T>**, Exec> D_per_channel = {};  ///< (heads, head_dim), optional, not with D
};

/// Gradients of SequenceOperatorParameters, full-size. A call adds its rank's part to what is there, and leaves alone
/// what it has no part in: the sum over the ranks of the context is the gradient of the sum of their losses. A gradient
/// that is absent is not formed.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SequenceOperatorGradients {
  Tensor<accumulator_t<T>**, Exec> conv_weight;    ///< (conv_channels, d_conv)
  Tensor<accumulator_t<T>*, Exec> conv_bias;       ///< (conv_channels), only with the parameter; so the others
  Tensor<accumulator_t<T>*, Exec> A_log;           ///< (heads)
  Tensor<accumulator_t<T>*, Exec> dt_bias;         ///< (heads)
  Tensor<accumulator_t<T>*, Exec> D;               ///< (heads)
  Tensor<accumulator_t<T>**, Exec> D_per_channel;  ///< (heads, head_dim)
};

/// What a document begins with, all optional; n = documents.documents(), in its numbering. Full-size, and the same on
/// every rank, which reads what it needs.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct InitialStates {
  Tensor<const T***, Exec> conv = {};                 ///< (n, conv_channels, d_conv - 1), oldest first; zero if absent
  Tensor<const accumulator_t<T>****, Exec> ssm = {};  ///< (n, heads, head_dim, d_state); zero if absent
};

/// What a document ends with, all optional, full-size, overwritten. A rank writes what it found, and 0 elsewhere, so
/// the sum over the ranks of the context is the whole, exactly. The final state of an empty document is its initial
/// one.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct FinalStates {
  Tensor<T***, Exec> conv = {};                 ///< (n, conv_channels, d_conv - 1), its last inputs
  Tensor<accumulator_t<T>****, Exec> ssm = {};  ///< (n, heads, head_dim, d_state)
};

/// Gradients of FinalStates, all optional, full-size, and the same on every rank.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct FinalStateGradients {
  Tensor<const accumulator_t<T>***, Exec> conv = {};
  Tensor<const accumulator_t<T>****, Exec> ssm = {};
};

/// Gradients of InitialStates, all optional, full-size, overwritten: this rank's part, as of parameters.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct InitialStateGradients {
  Tensor<accumulator_t<T>***, Exec> conv = {};
  Tensor<accumulator_t<T>****, Exec> ssm = {};
};

/// Elements that an operator may write from xBCdt.data() and from y.data(). The memory behind the tensors may be larger
/// than they are: a rank that has fewer tokens, or more heads, than the others gets more than it gives.
struct OperatorRoom {
  std::int64_t xBCdt = 0;
  std::int64_t y = 0;
  bool y_over_x = false;  ///< y may be the columns of x in xBCdt
};

/// Tensors of one call. b rows, l = layout.local_length() tokens of each.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SequenceOperatorArguments {
  Tensor<T***, Exec> xBCdt;  ///< (b, l, input_width): x | B | C | dt
  Tensor<T***, Exec> y;      ///< (b, l, d_inner), before gate and norm, overwritten; not over xBCdt but as `room` says
  /// At least workspace_bytes() bytes; its contents mean nothing before or after the call.
  Tensor<std::byte*, Exec> workspace;
  /// When at least what room() asks for: the operator uses the memory of `xBCdt` and `y` as further workspace, so that
  /// the peak of a rank is its share of the one-rank figure. The contents of `xBCdt` are lost then, and both must cover
  /// contiguous memory; but where room() says `y_over_x`, y may lie as it likes beside `xBCdt`, or be its columns of x.
  /// When 0: `xBCdt` stays as it is.
  OperatorRoom room = {};
  /// For a backward(): at least saved_bytes() bytes, filled with what that will need besides `xBCdt`. Absent: no
  /// backward follows.
  Tensor<std::byte*, Exec> saved = {};
  Saving saving = Saving::lean;
  InitialStates<T, Exec> initial = {};
  FinalStates<T, Exec> final = {};

  [[nodiscard]] bool overwrites_input() const { return room.xBCdt > 0; }
};

/// Tensors of one backward call.
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
struct SequenceOperatorBackwardArguments {
  Tensor<const T***, Exec> xBCdt;  ///< (b, l, input_width), as forward() got it
  Tensor<T***, Exec> dy;           ///< (b, l, d_inner), gradient of y
  Tensor<T***, Exec> dxBCdt;       ///< (b, l, input_width), overwritten; must not overlap xBCdt or dy
  /// What forward() saved, in the same mode.
  Tensor<const std::byte*, Exec> saved = {};
  Saving saving = Saving::lean;
  /// At least backward_workspace_bytes() bytes; its contents mean nothing before or after the call.
  Tensor<std::byte*, Exec> workspace;
  /// Elements that may be written from dy.data(). When at least backward_room(): that memory is further workspace; the
  /// contents of `dy` are lost then, and it must cover contiguous memory. When 0: `dy` stays as it is.
  std::int64_t room = 0;
  InitialStates<T, Exec> initial = {};  ///< as forward() got them
  FinalStateGradients<T, Exec> dfinal = {};
  InitialStateGradients<T, Exec> dinitial = {};
};

template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
class SequenceOperator {
 public:
  SequenceOperator() = default;
  SequenceOperator(const SequenceOperator&) = delete;
  SequenceOperator& operator=(const SequenceOperator&) = delete;
  virtual ~SequenceOperator() = default;

  [[nodiscard]] virtual Strategy strategy() const = 0;

  /// What forward() asks for at `xBCdt` and `y`, if it shall use them as workspace, for `batch` rows of this layout on
  /// this rank; 0 when it has no use for them.
  [[nodiscard]] virtual OperatorRoom room(const Communicator& context, const SequenceLayout& layout,
                                          std::int64_t batch) const = 0;

  /// Bytes that forward() wants in `workspace`, with or without that room.
  [[nodiscard]] virtual std::size_t workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                    std::int64_t batch, bool overwrite_input) const = 0;

  /// y = scan(conv(xBC), dt) over the whole sequence, every rank holding the tokens that `layout` gives it.
  ///
  /// The communicator is an argument, not part of the object: one operator may serve groups of different sizes. The
  /// first call with a layout and batch builds and agrees on a plan; later calls allocate nothing.
  ///
  /// \param documents  where convolution and state start afresh, in global token numbers of the layout
  /// \throws LayoutError, ShapeError, ConfigError on every rank alike before the first message; CapacityError when
  ///         the workspace is too small
  virtual void forward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                       const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                       const SequenceOperatorArguments<T, Exec>& arguments) = 0;

  /// Bytes that forward() saves for backward(), besides the input, which its caller keeps.
  [[nodiscard]] virtual std::size_t saved_bytes(const Communicator& context, const SequenceLayout& layout,
                                                std::int64_t batch, Saving saving) const = 0;

  /// Elements that backward() asks for at `dy`, if it shall use them as workspace; 0 when it has no use for them.
  [[nodiscard]] virtual std::int64_t backward_room(const Communicator& context, const SequenceLayout& layout,
                                                   std::int64_t batch, Saving saving) const = 0;

  /// Bytes that backward() wants in `workspace`, with or without that room.
  [[nodiscard]] virtual std::size_t backward_workspace_bytes(const Communicator& context, const SequenceLayout& layout,
                                                             std::int64_t batch, Saving saving,
                                                             bool overwrite_dy) const = 0;

  /// Gradients of forward() with the same layout, documents and parameters: dxBCdt of this rank's tokens, complete, and
  /// this rank's part of the parameter gradients. Exact; same bits in every call and in both saving modes.
  /// \throws as forward()
  virtual void backward(const Exec& exec, const Communicator& context, const SequenceLayout& layout,
                        const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                        const SequenceOperatorGradients<T, Exec>& gradients,
                        const SequenceOperatorBackwardArguments<T, Exec>& arguments) = 0;
};

/// \throws ConfigError for `Strategy::automatic`, which needs a layout: see Planner::choose(); for a configuration that
/// no
///         operator can work with
template <Scalar T, class Exec = Kokkos::DefaultExecutionSpace>
std::unique_ptr<SequenceOperator<T, Exec>> make_sequence_operator(Strategy strategy,
                                                                  const SequenceOperatorConfig& config);

}  // namespace krait
