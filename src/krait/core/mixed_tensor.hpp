// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <krait/core/scalars.hpp>
#include <krait/core/tensor.hpp>

namespace krait {

/// A read-only tensor that is stored either as T or as accumulator_t<T>, decided at run time: step sizes and initial
/// states come in the activation's type from one code and in single precision from another. Any View of either scalar
/// converts to it. Elements are read in accumulator_t<T>.
template <Scalar T, std::size_t Rank, class Exec = Kokkos::DefaultExecutionSpace>
class MixedTensor {
 public:
  using value_type = accumulator_t<T>;

  KOKKOS_DEFAULTED_FUNCTION MixedTensor() = default;

  template <class DataType, class... Properties>
    requires(std::is_same_v<std::remove_cv_t<typename Kokkos::View<DataType, Properties...>::value_type>, T> ||
             std::is_same_v<std::remove_cv_t<typename Kokkos::View<DataType, Properties...>::value_type>, value_type>)
  MixedTensor(const Kokkos::View<DataType, Properties...>& view)
      : data_(view.data()),
        wide_(!std::is_same_v<std::remove_cv_t<typename Kokkos::View<DataType, Properties...>::value_type>, T>) {
    using View = Kokkos::View<DataType, Properties...>;
    static_assert(View::rank() == Rank, "krait::MixedTensor: the View has another rank");
    static_assert(Kokkos::SpaceAccessibility<Exec, typename View::memory_space>::accessible,
                  "krait::MixedTensor: the View's memory is not accessible from the execution space");
    for (std::size_t r = 0; r < Rank; ++r) {
      extent_[r] = static_cast<std::int64_t>(view.extent(r));
      stride_[r] = static_cast<std::int64_t>(view.stride(r));
    }
  }

  template <class... I>
    requires(sizeof...(I) == Rank)
  KOKKOS_FUNCTION value_type operator()(I... i) const {
    std::int64_t offset = 0;
    std::size_t r = 0;
    ((offset += static_cast<std::int64_t>(i) * stride_[r++]), ...);
    return wide_ ? static_cast<const value_type*>(data_)[offset]
                 : static_cast<value_type>(static_cast<const T*>(data_)[offset]);
  }

  /// function(pointer to the first element), of the type in which they are stored.
  template <class Function>
  KOKKOS_FUNCTION void visit(const Function& function) const {
    if (wide_) {
      function(static_cast<const value_type*>(data_));
    } else {
      function(static_cast<const T*>(data_));
    }
  }

  [[nodiscard]] KOKKOS_FUNCTION std::int64_t stride(std::size_t r) const { return stride_[r]; }
  [[nodiscard]] KOKKOS_FUNCTION std::int64_t extent(std::size_t r) const { return extent_[r]; }
  [[nodiscard]] KOKKOS_FUNCTION bool begins_at(const void* data) const { return data_ == data; }
  [[nodiscard]] KOKKOS_FUNCTION bool absent() const { return data_ == nullptr; }
  [[nodiscard]] std::vector<std::int64_t> extents() const { return {extent_, extent_ + Rank}; }

 private:
  const void* data_ = nullptr;
  std::int64_t extent_[Rank] = {};
  std::int64_t stride_[Rank] = {};
  bool wide_ = false;
};

}  // namespace krait
