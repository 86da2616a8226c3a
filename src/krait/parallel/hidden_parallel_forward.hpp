// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <krait/comm/communicator.hpp>
#include <krait/comm/request.hpp>
#include <krait/layout/document_map.hpp>
#include <krait/parallel/hidden_parallel_memory.hpp>
#include <krait/parallel/hidden_parallel_plan.hpp>
#include <krait/parallel/sequence_operator.hpp>

namespace krait::impl {

/// A call of HiddenParallel::forward() that has been checked. Works on one block of heads after the other, while the
/// ones behind it travel here and those before it home:
///
///     enter 0 | enter 1 | conv, scan 0 | leave 0 | conv, scan 1 | leave 1 | unpack
template <Scalar T, class Exec>
class HiddenForward {
 public:
  /// Refers to all of its arguments.
  HiddenForward(const Exec& exec, const Communicator& context, HiddenPlan<T, Exec>& plan, const SequenceLayout& layout,
                const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                const SequenceOperatorArguments<T, Exec>& arguments);

  void run();

 private:
  using A = accumulator_t<T>;
  using Part = HeadPart<T, Exec>;

  /// \name Steps
  /// \{
  void enter();
  void take_states();
  void keep_arrival(const Part& part);
  void convolve(const Part& part);
  void scan(const Part& part);
  void leave(const Part& part);
  void unpack();
  /// \}

  /// Whether a backward reads what arrived, and the output of the convolution.
  [[nodiscard]] bool keeps() const { return arguments_.saving == Saving::full && !is_absent(arguments_.saved); }
  /// All of one part is all there is, and may arrive where it is kept.
  [[nodiscard]] bool arrives_kept() const { return keeps() && plan_.blocks() == 1; }
  static std::size_t index(const Part& part) { return static_cast<std::size_t>(part.number); }

  /// \name Where a part lies
  /// \{
  [[nodiscard]] T* kept_arrival() const { return reinterpret_cast<T*>(arguments_.saved.data() + saved_.arrival); }
  [[nodiscard]] Tensor<T*, Exec> packed(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> arrived(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> leaving(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> home(const Part& part) const;
  [[nodiscard]] Tensor<const T***, Exec> input(const Part& part) const;  ///< x | B | C | dt of the part
  /// The convolution's output: columns of the part, or of all, in the order in which a backward reads them.
  [[nodiscard]] Tensor<T***, Exec> conv_out(const Part& part) const;
  [[nodiscard]] Tensor<const T***, Exec> x(const Part& part) const;
  [[nodiscard]] Tensor<const T***, Exec> group_columns() const;  ///< B | C of all the rank's groups
  /// \}

  const Exec& exec_;
  const Communicator& context_;
  HiddenPlan<T, Exec>& plan_;
  const DocumentMap& documents_;
  const SequenceOperatorParameters<T, Exec>& parameters_;
  const SequenceOperatorArguments<T, Exec>& arguments_;

  HiddenBlocks<T, Exec> blocks_;
  HiddenSaved<T, Exec> saved_;
  T* exchange_;
  T* arrival_;
  T* y_out_;
  Tensor<const std::int64_t*, Exec> map_;
  std::vector<Request> entering_, gone_;  ///< of every part

  // States of this rank's channels; absent where the call has none.
  Tensor<A***, Exec> initial_conv_;
  Tensor<T***, Exec> final_conv_;
};

}  // namespace krait::impl
