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

/// A call of HiddenParallel::backward() that has been checked. Works on one block of heads after the other, while the
/// ones behind it travel here and those before it home:
///
///     enter B C | enter 0 | enter 1 | scan, conv 0 | leave 0 | scan, conv 1 | leave 1 | conv B C | leave B C | unpack
template <Scalar T, class Exec>
class HiddenBackward {
 public:
  /// Refers to all of its arguments.
  HiddenBackward(const Exec& exec, const Communicator& context, HiddenPlan<T, Exec>& plan, const SequenceLayout& layout,
                 const DocumentMap& documents, const SequenceOperatorParameters<T, Exec>& parameters,
                 const SequenceOperatorGradients<T, Exec>& gradients,
                 const SequenceOperatorBackwardArguments<T, Exec>& arguments);

  void run();

 private:
  using A = accumulator_t<T>;
  using Part = GradientPart<T, Exec>;

  /// \name Steps
  /// \{
  void enter();
  void take_states();
  void wait_for(const Part& part);
  void convolve(const Part& part);
  void scan_backward(const Part& part);
  void convolve_backward(const Part& part);
  void leave(const Part& part);
  void put_states();
  void unpack();
  /// \}

  [[nodiscard]] bool lean() const { return arguments_.saving == Saving::lean; }
  /// The one with B and C.
  [[nodiscard]] const Part& groups() const { return plan_.gradient_parts.back(); }
  [[nodiscard]] bool groups_travel_alone() const { return !groups().has_heads; }
  static std::size_t index(const Part& part) { return static_cast<std::size_t>(part.number); }

  /// \name Where a part lies
  /// \{
  [[nodiscard]] Tensor<T*, Exec> packed(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> arrived(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> leaving(const Part& part) const;
  [[nodiscard]] Tensor<T*, Exec> home(const Part& part) const;
  /// Columns of x | B | C | dt, by their place among those of the part, and among those of the rank.
  [[nodiscard]] Tensor<const T***, Exec> input(const Part& part, std::int64_t begin_in_part, std::int64_t begin,
                                               std::int64_t count) const;
  [[nodiscard]] Tensor<const T***, Exec> x(const Part& part) const;  ///< x | B | C before the convolution
  [[nodiscard]] Tensor<const T***, Exec> dt(const Part& part) const;
  [[nodiscard]] Tensor<const T***, Exec> dy(const Part& part) const;
  [[nodiscard]] Tensor<T***, Exec> conv_memory(const Part& part) const;     ///< of what is convolved again
  [[nodiscard]] Tensor<const T***, Exec> conv_out(const Part& part) const;  ///< x | B | C
  [[nodiscard]] Tensor<T***, Exec> dconv_out(const Part& part) const;
  [[nodiscard]] Tensor<T***, Exec> dinput(const Part& part) const;  ///< x | B | C | dt
  /// \}

  const Exec& exec_;
  const Communicator& context_;
  HiddenPlan<T, Exec>& plan_;
  const DocumentMap& documents_;
  const SequenceOperatorParameters<T, Exec>& parameters_;
  const SequenceOperatorGradients<T, Exec>& gradients_;
  const SequenceOperatorBackwardArguments<T, Exec>& arguments_;

  HiddenGradientBlocks<T, Exec> blocks_;
  HiddenSaved<T, Exec> saved_;
  T* exchange_;
  T* arrival_;
  Tensor<std::byte*, Exec> scratch_;
  Tensor<const std::int64_t*, Exec> map_;
  std::vector<Request> entering_, gone_;  ///< of every part

  /// States of this rank's channels, and their gradients; absent where the call has none.
  Tensor<A***, Exec> conv_states_, dfinal_conv_, dconv_states_;
};

}  // namespace krait::impl
