// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <Kokkos_Core.hpp>
#include <cfenv>
#include <string>

namespace krait::test {

/// Runs `work` and names the floating-point exceptions it raised on this thread: a NaN that is produced, a division by
/// zero, an overflow. Empty when there were none. Says something about host backends with one thread only.
template <class Work>
std::string raised_exceptions(const Work& work) {
  std::feclearexcept(FE_ALL_EXCEPT);
  work();
  Kokkos::fence("krait::test: work is done");
  std::string names;
  if (std::fetestexcept(FE_INVALID) != 0) names += " invalid";
  if (std::fetestexcept(FE_DIVBYZERO) != 0) names += " division by zero";
  if (std::fetestexcept(FE_OVERFLOW) != 0) names += " overflow";
  return names;
}

}  // namespace krait::test
