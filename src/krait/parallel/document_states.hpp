// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <vector>

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>
#include <krait/parallel/shard_runs.hpp>

namespace krait::impl {

/// States that documents begin and end with, brought to the pieces that a rank has of them, and back. n documents, of
/// which tensors are full-size and may be absent; m pieces, those of ShardRuns.
///
/// What is brought to pieces is 0 where a piece has no part in it. What is brought back is this rank's part, and 0
/// elsewhere: FinalStates, InitialStateGradients.
template <Scalar T, class Exec>
class DocumentStates {
 public:
  using A = accumulator_t<T>;
  using Parts = Kokkos::View<const DocumentPart*, typename Exec::memory_space>;

  explicit DocumentStates(const std::vector<DocumentPart>& parts);

  [[nodiscard]] const Parts& parts() const { return parts_; }

  /// \name Convolution: (n or m, channels, d_conv - 1)
  /// \{

  /// The inputs before each piece that lie before its document; a window may reach over several pieces to them.
  void take_initial(const Exec& exec, const Tensor<const T***, Exec>& documents,
                    const Tensor<T***, Exec>& pieces) const;
  /// Of each document, the last inputs that the piece at its end has.
  void put_final(const Exec& exec, const Tensor<const T***, Exec>& pieces, const Tensor<T***, Exec>& documents) const;
  /// Gradients of the inputs that a document's final state holds, for the pieces that these lie in. A short document's
  /// final state holds inputs before it too: they are the first piece's.
  void take_final_gradients(const Exec& exec, const Tensor<const A***, Exec>& documents,
                            const Tensor<A***, Exec>& pieces) const;
  /// Of each document, the sum over the pieces whose windows reach before it, in the order of their states.
  void put_initial_gradients(const Exec& exec, const Tensor<const A***, Exec>& pieces,
                             const Tensor<A***, Exec>& documents) const;
  /// \}

  /// \name Scan: (n or m, heads, head_dim, d_state), of the pieces at which documents begin or end
  /// \{
  void take_initial(const Exec& exec, const Tensor<const A****, Exec>& documents,
                    const Tensor<A****, Exec>& pieces) const;
  void put_final(const Exec& exec, const Tensor<const A****, Exec>& pieces, const Tensor<A****, Exec>& documents) const;
  void take_final_gradients(const Exec& exec, const Tensor<const A****, Exec>& documents,
                            const Tensor<A****, Exec>& pieces) const;
  void put_initial_gradients(const Exec& exec, const Tensor<const A****, Exec>& pieces,
                             const Tensor<A****, Exec>& documents) const;
  /// \}

 private:
  Parts parts_;
};

}  // namespace krait::impl
