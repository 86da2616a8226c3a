// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <Kokkos_Core.hpp>
#include <krait/core/config.hpp>
#include <krait/ops/projection.hpp>

// Every output is the sum of three ones. An operator of the library, so that linking is tested too.
int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);
  const Kokkos::View<float***> in("in", 1, 2, 3);
  const Kokkos::View<float**> weight("weight", 4, 3);
  const Kokkos::View<float***> out("out", 1, 2, 4);
  Kokkos::deep_copy(in, 1.0F);
  Kokkos::deep_copy(weight, 1.0F);
  krait::ProjectionArguments<float> arguments;
  arguments.in = in;
  arguments.weight = weight;
  arguments.out = out;
  krait::projection<float>(Kokkos::DefaultExecutionSpace(), arguments);
  const auto result = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), out);
  return result(0, 1, 3) == 3.0F && KRAIT_VERSION >= 100 ? 0 : 1;
}
