// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <krait/comm/reductions.hpp>

#include <krait/core/instantiate.hpp>

namespace krait::impl {
namespace {

struct Add {
  template <class T>
  KOKKOS_FUNCTION static T combine(T a, T b) {
    return a + b;
  }
};

// A NaN differs from itself; written so that one on either side comes through.
struct Larger {
  template <class T>
  KOKKOS_FUNCTION static T combine(T a, T b) {
    return (b > a || b != b) ? b : a;
  }
};

struct Smaller {
  template <class T>
  KOKKOS_FUNCTION static T combine(T a, T b) {
    return (b < a || b != b) ? b : a;
  }
};

template <class Operation, class T>
struct Combine {
  const T* gathered;
  std::int64_t ranks;
  std::int64_t count;
  T* result;

  KOKKOS_FUNCTION void operator()(std::int64_t i) const {
    T value = gathered[i];
    for (std::int64_t r = 1; r < ranks; ++r) value = Operation::combine(value, gathered[r * count + i]);
    result[i] = value;
  }
};

template <class Operation, class T, class Exec>
void combine(const char* label, const Exec& exec, const T* gathered, int ranks, std::int64_t count, T* result) {
  Kokkos::parallel_for(label, Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(exec, 0, count),
                       Combine<Operation, T>{gathered, ranks, count, result});
}

}  // namespace

template <class T, class Exec>
void reduce_in_order(const Exec& exec, const T* gathered, int ranks, std::int64_t count, T* result,
                     Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      combine<Add>("krait::comm::reduce[sum]", exec, gathered, ranks, count, result);
      break;
    case Reduction::max:
      combine<Larger>("krait::comm::reduce[max]", exec, gathered, ranks, count, result);
      break;
    case Reduction::min:
      combine<Smaller>("krait::comm::reduce[min]", exec, gathered, ranks, count, result);
      break;
  }
}

#define KRAIT_INSTANTIATE_SCALAR(T, EXEC) \
  template void reduce_in_order<T, EXEC>(const EXEC&, const T*, int, std::int64_t, T*, Reduction);
#define KRAIT_INSTANTIATE(EXEC)                 \
  KRAIT_INSTANTIATE_SCALAR(float, EXEC)         \
  KRAIT_INSTANTIATE_SCALAR(double, EXEC)        \
  KRAIT_INSTANTIATE_SCALAR(std::int32_t, EXEC)  \
  KRAIT_INSTANTIATE_SCALAR(std::int64_t, EXEC)  \
  KRAIT_INSTANTIATE_SCALAR(std::uint32_t, EXEC) \
  KRAIT_INSTANTIATE_SCALAR(std::uint64_t, EXEC)
KRAIT_FOR_EACH_SPACE(KRAIT_INSTANTIATE)

}  // namespace krait::impl
